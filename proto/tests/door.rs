//! Whatever goes through the door comes back as it was.
#![allow(clippy::unwrap_used, reason = "a test stops at what it does not expect")]

use proptest::{prelude::*, sample::select};
use rackferry_model::{
    Compress, Condition, CopyRole, Counters, DEFAULT_MAX_DOWNTIME_MS, Dedup, Disruption, End,
    EvacuationState, FindingCode, Listed, MoveOptions, NodeRole, Outcome, Ownership, Phase,
    ProblemCode, RunState, Severity, WaitCode, Word,
};
use rackferry_proto::{
    door::{FromNumber, Invalid, word},
    v1,
};

/// Every word has a number of its own, and is called in messages as everywhere else.
fn crosses<W: Word + FromNumber, M: From<W> + Into<i32>>(name: impl Fn(&M) -> &'static str) {
    for &value in W::ALL {
        let message = M::from(value);
        let called = name(&message).to_lowercase();
        assert!(called.ends_with(value.as_str()), "{called} is {value:?}");
        assert_eq!(word::<W>(message.into()), Some(value));
    }
    assert_eq!(word::<W>(0), None);
    assert_eq!(word::<W>(-1), None);
    assert_eq!(word::<W>(1000), None);
}

#[test]
fn words_cross_both_ways() {
    crosses::<Dedup, _>(v1::DedupMode::as_str_name);
    crosses::<Compress, _>(v1::CompressMode::as_str_name);
    crosses::<Disruption, _>(v1::Disruption::as_str_name);
    crosses::<Outcome, _>(v1::Outcome::as_str_name);
    crosses::<End, _>(v1::MigrationEnd::as_str_name);
    crosses::<RunState, _>(v1::RunState::as_str_name);
    crosses::<Phase, _>(v1::Phase::as_str_name);
    crosses::<EvacuationState, _>(v1::EvacuationState::as_str_name);
    crosses::<WaitCode, _>(v1::WaitCode::as_str_name);
    crosses::<Ownership, _>(v1::Ownership::as_str_name);
    crosses::<Condition, _>(v1::VmCondition::as_str_name);
    crosses::<Listed, _>(v1::Listed::as_str_name);
    crosses::<CopyRole, _>(v1::CopyRole::as_str_name);
    crosses::<NodeRole, _>(v1::NodeRole::as_str_name);
    crosses::<Severity, _>(v1::Severity::as_str_name);
    crosses::<FindingCode, _>(v1::FindingCode::as_str_name);
    crosses::<ProblemCode, _>(v1::ProblemCode::as_str_name);
}

fn options() -> impl Strategy<Value = MoveOptions> {
    let words = (select(Dedup::ALL), select(Compress::ALL), select(Disruption::ALL));
    (words, 1..=u32::MAX, any::<bool>()).prop_map(|(words, max_downtime_ms, verify)| {
        let (dedup, compress, disruption) = words;
        MoveOptions { dedup, compress, max_downtime_ms, verify, disruption }
    })
}

fn counters() -> impl Strategy<Value = Counters> {
    any::<[u64; 6]>().prop_map(|[logical, zero, duplicate, raw, wire, supplied]| Counters {
        logical,
        zero,
        duplicate,
        raw,
        wire,
        supplied,
    })
}

proptest! {
    #[test]
    fn options_come_back(options in options()) {
        prop_assert_eq!(v1::MigrationOptions::from(options).try_into(), Ok(options));
    }

    #[test]
    fn counters_come_back(counters in counters()) {
        prop_assert_eq!(Counters::from(v1::TransferCounters::from(counters)), counters);
    }

    #[test]
    fn options_of_any_numbers_are_taken_or_refused(numbers in any::<[i32; 3]>()) {
        let [dedup, compress, disruption] = numbers;
        let message = v1::MigrationOptions { dedup, compress, disruption, ..Default::default() };
        if let Ok(options) = MoveOptions::try_from(message) {
            prop_assert_eq!(MoveOptions::try_from(v1::MigrationOptions::from(options)), Ok(options));
        }
    }
}

#[test]
fn what_is_not_chosen_is_the_default() {
    let options = MoveOptions::try_from(v1::MigrationOptions::default()).unwrap();
    assert_eq!(options, MoveOptions::default());
    assert_eq!(options.max_downtime_ms, DEFAULT_MAX_DOWNTIME_MS);
}

#[test]
fn what_is_not_known_is_refused_by_name() {
    let refused = |message: v1::MigrationOptions| MoveOptions::try_from(message).unwrap_err();
    let message = v1::MigrationOptions { dedup: 9, ..Default::default() };
    assert_eq!(refused(message), Invalid("options.dedup"));
    let message = v1::MigrationOptions { compress: 9, ..Default::default() };
    assert_eq!(refused(message), Invalid("options.compress"));
    let message = v1::MigrationOptions { disruption: 9, ..Default::default() };
    assert_eq!(refused(message), Invalid("options.disruption"));
}
