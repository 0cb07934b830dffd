//! Tokens: each lets one host in, once. The holder of the secret is let in; the log keeps a digest of it.

use crate::{Effect, Fleet, HostName, Moment, Record, Refusal, TokenRecord};

/// Tokens that may wait to be used: as many as hosts are set up at a time.
pub const TOKENS: usize = 4096;

impl Fleet {
    /// Keeps a token for a host, in place of an older one of that host.
    ///
    /// # Errors
    /// If too many wait to be used, or the host is expelled.
    pub fn create_token(
        &mut self,
        token: TokenRecord,
        now: Moment,
        out: &mut Vec<Effect>,
    ) -> Result<(), Refusal> {
        self.check_not_expelled(token.host.as_str())?;
        self.begin(now);
        let tokens = self.store.tokens().values();
        let expired = tokens.filter(|token| token.expires <= self.now);
        let expired: Vec<_> = expired.map(|token| token.host.clone()).collect();
        expired.iter().for_each(|host| self.store.remove_token(host));
        let waiting = self.store.tokens().len();
        let kept = waiting < TOKENS || self.store.tokens().contains_key(&token.host);
        if kept {
            self.store.put(Record::Token(token));
        }
        self.finish(out);
        if kept { Ok(()) } else { Err(Refusal::TooManyTokens(waiting)) }
    }

    /// Whether this is the token of a host; it is not used up.
    ///
    /// # Errors
    /// If it is not, or not any more, or the host is expelled.
    pub fn check_token(&self, host: &HostName, digest: &str, now: Moment) -> Result<(), Refusal> {
        self.check_not_expelled(host.as_str())?;
        let token = self.store.tokens().get(host);
        let good = token.is_some_and(|token| token.digest == digest && now < token.expires);
        if good { Ok(()) } else { Err(Refusal::Token) }
    }

    /// Uses the token of a host up, if this is it.
    ///
    /// # Errors
    /// As [`Fleet::check_token`].
    pub fn use_token(
        &mut self,
        host: &HostName,
        digest: &str,
        now: Moment,
        out: &mut Vec<Effect>,
    ) -> Result<(), Refusal> {
        self.check_token(host, digest, now)?;
        self.begin(now);
        self.store.remove_token(host);
        self.finish(out);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Change, Key, Limits};

    const NOW: Moment = Moment(1000);

    fn token(host: &str, digest: &str) -> TokenRecord {
        TokenRecord { host: host.into(), digest: digest.into(), expires: Moment(2000) }
    }

    fn fleet(tokens: impl IntoIterator<Item = TokenRecord>) -> Fleet {
        Fleet::new(Limits::default(), tokens.into_iter().map(Record::Token), NOW)
    }

    #[test]
    fn a_token_is_good_once() {
        let (mut fleet, mut out) = (fleet([]), Vec::new());
        assert_eq!(fleet.create_token(token("h1", "d"), NOW, &mut out), Ok(()));
        let put = Change::Put(Record::Token(token("h1", "d")));
        assert_eq!(out, [Effect::Persist(vec![put]), Effect::Publish]);
        out.clear();
        assert_eq!(fleet.use_token(&"h1".into(), "d", NOW, &mut out), Ok(()));
        let remove = Change::Remove(Key::Token("h1".into()));
        assert_eq!(out, [Effect::Persist(vec![remove]), Effect::Publish]);
        out.clear();
        assert_eq!(fleet.use_token(&"h1".into(), "d", NOW, &mut out), Err(Refusal::Token));
        assert_eq!(out, []);
    }

    #[test]
    fn only_the_newest_of_a_host_is_good_and_only_in_time() {
        let mut fleet = fleet([token("h1", "old"), token("h2", "other")]);
        fleet.create_token(token("h1", "new"), NOW, &mut Vec::new()).unwrap();
        for (host, digest, now) in [
            ("h1", "old", NOW),
            ("h1", "other", NOW),
            ("h3", "new", NOW),
            ("h1", "new", Moment(2000)),
        ] {
            assert_eq!(fleet.check_token(&host.into(), digest, now), Err(Refusal::Token));
            let used = fleet.use_token(&host.into(), digest, now, &mut Vec::new());
            assert_eq!(used, Err(Refusal::Token), "{host} {digest}");
        }
    }

    #[test]
    fn those_that_expired_make_room() {
        let full = |expires| {
            (0..TOKENS).map(move |n| TokenRecord { expires, ..token(&format!("h{n}"), "d") })
        };
        let mut new = fleet(full(Moment(2000)));
        let refused = new.create_token(token("new", "d"), NOW, &mut Vec::new());
        assert_eq!(refused, Err(Refusal::TooManyTokens(TOKENS)));
        let mut old = fleet(full(NOW));
        assert_eq!(old.create_token(token("new", "d"), NOW, &mut Vec::new()), Ok(()));
        assert_eq!(old.store.tokens().len(), 1);
    }
}
