//! The model's words for states in tables.

use std::fmt::Display;

use rackferry_model as model;
use rackferry_proto::{
    door::{self, FromNumber},
    v1::{
        CopyRole, EvacuationState, EventOutcome, NodeRole, Ownership, Phase, ProblemCode, RunState,
        VmCondition,
    },
};

fn word<T: FromNumber + Display>(number: impl Into<i32>) -> String {
    model::view::Received(door::word::<T>(number.into())).to_string()
}

pub fn phase(phase: Phase) -> String {
    word::<model::Phase>(phase)
}

pub fn state(state: EvacuationState) -> String {
    word::<model::EvacuationState>(state)
}

pub fn ownership(ownership: Ownership) -> String {
    word::<model::Ownership>(ownership)
}

pub fn role(role: NodeRole) -> String {
    word::<model::NodeRole>(role)
}

pub fn run_state(state: RunState) -> String {
    word::<model::RunState>(state)
}

pub fn copy_role(role: CopyRole) -> String {
    word::<model::CopyRole>(role)
}

pub fn event(outcome: EventOutcome) -> String {
    word::<model::EventOutcome>(outcome)
}

pub fn problem(code: ProblemCode) -> String {
    word::<model::ProblemCode>(code)
}

pub fn condition(condition: VmCondition) -> String {
    word::<model::Condition>(condition)
}
