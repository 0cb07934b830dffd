//! An agent's rules in a hand: events in, effects and words out.

use rackferry_agent_core::{Carried, Core, Effect, Event, MigrationId, Moment, Order, Word};

/// The migration of the tests.
pub const ID: MigrationId = MigrationId(7);
/// Its session and the generation its target will own with.
pub const SESSION: u64 = 7;
pub const GENERATION: u64 = 3;

/// What is carried are texts and numbers.
#[derive(Clone, Debug, PartialEq)]
pub enum Text {}

impl Carried for Text {
    type Prepare = &'static str;
    type Start = &'static str;
    type Progress = u32;
    type Figures = u32;
    type Findings = u32;
}

pub struct Agent {
    pub core: Core<Text>,
    pub now: Moment,
}

impl Agent {
    /// One that the coordinator has welcomed, and whose stream is up.
    pub fn connected() -> Self {
        let mut agent = Self { core: Core::new(2), now: Moment(0) };
        for event in [Event::Dialling, Event::Connected, Event::Welcomed] {
            assert_eq!(agent.takes(event), []);
        }
        assert_eq!(agent.takes(Event::Tick), [Effect::Report], "the first of a stream");
        assert_eq!(agent.takes(Event::Reported), []);
        agent
    }

    /// What is to be done about an event.
    pub fn takes(&mut self, event: Event<Text>) -> Vec<Effect<Text>> {
        let mut out = Vec::new();
        self.core.handle(event, self.now, &mut out);
        out
    }

    pub fn obeys(&mut self, order: Order<Text>) -> Vec<Effect<Text>> {
        self.takes(Event::Ordered(order))
    }

    /// What it says.
    pub fn says(&mut self) -> Vec<Word<Text>> {
        std::iter::from_fn(|| self.core.next_word()).collect()
    }
}
