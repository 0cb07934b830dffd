//! Certificates that are expelled: the list that all coordinators and agents look at in their handshakes.

use crate::{Effect, ExpelledRecord, Fleet, Moment, Record, Refusal};

/// Certificates that may be expelled: every agent keeps the list, and gets it whole with each change.
pub const EXPELLED: usize = 4096;

impl Fleet {
    /// Expels a name, or one certificate of it. Said again, the record of the first time stays.
    ///
    /// # Errors
    /// If too many are expelled.
    pub fn expel(
        &mut self,
        record: ExpelledRecord,
        now: Moment,
        out: &mut Vec<Effect>,
    ) -> Result<(), Refusal> {
        self.begin(now);
        let known =
            self.store.expelled().contains_key(&(record.name.clone(), record.serial.clone()));
        let count = self.store.expelled().len();
        if !known && count >= EXPELLED {
            return Err(Refusal::TooManyExpelled(count));
        }
        if !known {
            self.note(false, expelled(&record));
            // What was meant to let it in must not outlive this.
            let host = record.name.as_str().into();
            if record.serial.is_none() && self.store.tokens().contains_key(&host) {
                self.store.remove_token(&host);
            }
            self.store.put(Record::Expelled(record));
        }
        self.finish(out);
        Ok(())
    }

    /// Takes a name, or one certificate of it, off the list.
    ///
    /// # Errors
    /// If it is not on the list.
    pub fn readmit(
        &mut self,
        name: &str,
        serial: Option<&str>,
        now: Moment,
        out: &mut Vec<Effect>,
    ) -> Result<(), Refusal> {
        self.begin(now);
        if !self.store.remove_expelled(name, serial) {
            return Err(Refusal::NotExpelled(name.to_owned()));
        }
        self.note(false, format!("{name} is readmitted"));
        self.finish(out);
        Ok(())
    }

    /// Those who are expelled, by name.
    pub fn expelled(&self) -> impl Iterator<Item = &ExpelledRecord> {
        self.store.expelled().values()
    }

    /// Checks that a name may have a certificate.
    ///
    /// # Errors
    /// If all its certificates are expelled.
    pub fn check_not_expelled(&self, name: &str) -> Result<(), Refusal> {
        let is = self.store.expelled().contains_key(&(name.to_owned(), None));
        if is { Err(Refusal::Expelled(name.to_owned())) } else { Ok(()) }
    }
}

fn expelled(record: &ExpelledRecord) -> String {
    let ExpelledRecord { name, serial, by, .. } = record;
    match serial {
        None => format!("{name} is expelled, by {by}"),
        Some(serial) => format!("the certificate {serial} of {name} is expelled, by {by}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Change, Key, Limits, TokenRecord};

    const NOW: Moment = Moment(1000);

    fn record(name: &str, serial: Option<&str>) -> ExpelledRecord {
        ExpelledRecord {
            name: name.to_owned(),
            serial: serial.map(str::to_owned),
            by: "admin anna".to_owned(),
            at: NOW,
        }
    }

    fn fleet(records: impl IntoIterator<Item = Record>) -> Fleet {
        Fleet::new(Limits::default(), records, NOW)
    }

    fn changes(out: Vec<Effect>) -> Vec<Change> {
        let persisted = out.into_iter().filter_map(|effect| match effect {
            Effect::Persist(changes) => Some(changes),
            _ => None,
        });
        persisted.flatten().collect()
    }

    #[test]
    fn what_is_expelled_is_written_down_and_stays_until_it_is_readmitted() {
        let (mut fleet, mut out) = (fleet([]), Vec::new());
        fleet.expel(record("h1", None), NOW, &mut out).unwrap();
        let written = changes(std::mem::take(&mut out));
        assert_eq!(written, [Change::Put(Record::Expelled(record("h1", None)))]);
        let later = ExpelledRecord { by: "admin bert".to_owned(), ..record("h1", None) };
        fleet.expel(later, NOW, &mut out).unwrap();
        assert_eq!(changes(std::mem::take(&mut out)), [], "the first time stays");

        let mut fleet = self::fleet([Record::Expelled(record("h1", None))]);
        assert_eq!(fleet.check_not_expelled("h1"), Err(Refusal::Expelled("h1".to_owned())));
        let other = fleet.readmit("h1", Some("a"), NOW, &mut out);
        assert_eq!(other, Err(Refusal::NotExpelled("h1".to_owned())));
        fleet.readmit("h1", None, NOW, &mut out).unwrap();
        assert_eq!(changes(out), [Change::Remove(Key::Expelled("h1".to_owned(), None))]);
        assert_eq!(fleet.check_not_expelled("h1"), Ok(()));
    }

    #[test]
    fn a_host_that_is_expelled_gets_no_token_and_uses_none() {
        let token = TokenRecord { host: "h1".into(), digest: "d".into(), expires: Moment(2000) };
        let mut fleet = fleet([Record::Token(token.clone())]);
        let mut out = Vec::new();
        fleet.expel(record("h1", Some("a")), NOW, &mut out).unwrap();
        assert_eq!(fleet.check_token(&"h1".into(), "d", NOW), Ok(()), "one certificate alone");
        fleet.expel(record("h1", None), NOW, &mut out).unwrap();
        let expelled = Err(Refusal::Expelled("h1".to_owned()));
        assert_eq!(fleet.check_token(&"h1".into(), "d", NOW), expelled);
        assert_eq!(fleet.create_token(token, NOW, &mut out), expelled);
        fleet.readmit("h1", None, NOW, &mut out).unwrap();
        assert_eq!(fleet.check_token(&"h1".into(), "d", NOW), Err(Refusal::Token), "it is gone");
    }

    #[test]
    fn the_list_is_bounded() {
        let all = (0..EXPELLED).map(|n| Record::Expelled(record(&format!("h{n}"), None)));
        let mut full = fleet(all);
        let refused = full.expel(record("one-more", None), NOW, &mut Vec::new());
        assert_eq!(refused, Err(Refusal::TooManyExpelled(EXPELLED)));
        assert_eq!(full.expel(record("h1", None), NOW, &mut Vec::new()), Ok(()));
    }

    #[test]
    fn a_record_is_read_as_it_was_written() {
        let text = r#"{"expelled.v1":{"name":"h1","serial":null,"by":"admin anna","at":1000}}"#;
        let read: Record = serde_json::from_str(text).unwrap();
        assert_eq!(read, Record::Expelled(record("h1", None)));
    }
}
