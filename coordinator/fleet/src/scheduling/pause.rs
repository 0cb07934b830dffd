//! Evacuations that start nothing for a while.

use crate::{Effect, EvacuationId, Fleet, Moment, Refusal};

impl Fleet {
    /// Pauses an evacuation, or lets it go on: while it is paused no move of it starts, those under way finish. To say
    /// it again changes nothing.
    ///
    /// # Errors
    /// [`Refusal::UnknownEvacuation`]; [`Refusal::Ended`] if there is nothing left to pause.
    pub fn pause_evacuation(
        &mut self,
        id: EvacuationId,
        paused: bool,
        now: Moment,
        out: &mut Vec<Effect>,
    ) -> Result<(), Refusal> {
        let record = self.store.evacuations().get(&id).ok_or(Refusal::UnknownEvacuation(id))?;
        if record.ended.is_some() {
            return Err(Refusal::Ended(id));
        }
        if record.paused == paused {
            return Ok(());
        }
        self.begin(now);
        self.store.change_evacuation(id, |record| record.paused = paused);
        for migration in self.store.index().moves_of_evacuation(id).collect::<Vec<_>>() {
            self.scheduling.queue.look_again(migration);
        }
        self.finish(out);
        Ok(())
    }

    pub(crate) fn is_paused(&self, id: EvacuationId) -> bool {
        if planted!(self, PauseOverlooked) {
            return false;
        }
        self.store.evacuations().get(&id).is_some_and(|record| record.paused)
    }
}
