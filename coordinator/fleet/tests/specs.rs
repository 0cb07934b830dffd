//! A VM's spec is registered once: what an agent reports later reaches no other host by itself.

use crate::common::{Desk, moving, request, vm};
use rackferry_fleet::{
    Act, Action, Caller, Change, Condition, Done, Effect, Event, MigrationId, Order, ProblemCode,
    Record, Refusal, RunState, VmReport,
};

const GOOD: &str = "name = 'web'";
const POISONED: &str = "name = 'web'\nextra_args = ['--incoming', 'exec:sh']";

fn with_spec(spec: &str) -> VmReport {
    VmReport { spec_toml: spec.to_owned(), ..vm("web", RunState::Running) }
}

/// What targets were told to start.
fn prepared(desk: &mut Desk) -> Vec<String> {
    let told = desk.told().into_iter().map(|(_, order)| order);
    told.filter_map(|order| match order {
        Order::PrepareTarget { spec_toml, .. } => Some(spec_toml),
        _ => None,
    })
    .collect()
}

fn changed(desk: &Desk) -> bool {
    let problems = desk.fleet.problems("0.1.0");
    problems.iter().any(|problem| problem.kind == ProblemCode::VmSpecChanged)
}

/// An operator accepts a spec, as the service does it.
fn accept(desk: &mut Desk, seen: &str) -> Result<(), Refusal> {
    let (now, mut out) = (desk.now, Vec::new());
    let act = Act::new(Caller::new("operator", "anna"), Action::VmAcceptSpec, "VM web");
    let answer = desk.fleet.act(act, now, &mut out, |fleet, now, out| {
        let host = fleet.accept_spec(&"web".into(), seen, now, out)?;
        Ok(Done::new((), host.to_string()))
    });
    let writes: Vec<_> = out.iter().filter(|one| matches!(one, Effect::Persist(_))).collect();
    match answer {
        Ok(()) => {
            let [Effect::Persist(changes)] = &writes[..] else { panic!("{writes:?}") };
            let events = changes.iter().filter_map(|change| match change {
                Change::Put(Record::Event(event)) => Some(&event.act.by.name),
                _ => None,
            });
            assert_eq!(events.collect::<Vec<_>>(), ["anna"], "in the write of the change");
        }
        Err(_) => assert!(writes.is_empty(), "{writes:?}"),
    }
    desk.take(out);
    answer
}

fn registered(desk: &Desk) -> Option<String> {
    desk.fleet.vm_specs(&"web".into()).unwrap().registered.map(String::from)
}

#[test]
fn a_target_gets_the_registered_spec_whatever_the_source_says_later() {
    let mut desk = Desk::new();
    let a = desk.connect("a1", "a", "boot-a", vec![with_spec(GOOD)]);
    desk.connect("b1", "b", "boot-b", vec![]);
    desk.evacuate("a", "b");
    assert_eq!(prepared(&mut desk), [GOOD]);
    // Before the target is ready, the agent is taken over; a restarted target is told once more.
    desk.report(
        a,
        vec![VmReport { spec_toml: POISONED.to_owned(), ..moving("web", RunState::Running, 1) }],
    );
    desk.connect("b1", "b", "boot-b2", vec![]);
    assert_eq!(prepared(&mut desk), [GOOD]);
    assert!(changed(&desk));
}

#[test]
fn a_vm_with_another_spec_stays_until_a_person_accepts_it() {
    let mut desk = Desk::new();
    let a = desk.connect("a1", "a", "boot-a", vec![with_spec(GOOD)]);
    desk.connect("b1", "b", "boot-b", vec![]);
    desk.report(a, vec![with_spec(POISONED)]);
    assert!(changed(&desk));
    let refused = desk.fleet.plan_evacuation(&request("a", "b"));
    let text = refused.unwrap_err().to_string();
    assert!(text.contains("another spec") && text.contains("rackferry vm spec"), "{text}");
    let candidate = desk.fleet.candidate(&"web".into()).unwrap();
    assert_eq!(candidate.spec_toml, GOOD, "checks ask about what a target would get");
    // A dead VM is of no interest, and what is no answer is no difference.
    desk.report(a, vec![VmReport { run_state: RunState::Dead, ..with_spec(POISONED) }]);
    assert!(!changed(&desk));
    desk.report(a, vec![with_spec("")]);
    assert!(!changed(&desk));

    desk.report(a, vec![with_spec(POISONED)]);
    let stale = Err(Refusal::SpecDiffers("web".into(), "a1".into()));
    assert_eq!(accept(&mut desk, "what was shown before"), stale);
    assert_eq!(accept(&mut desk, ""), stale);
    assert_eq!(registered(&desk).as_deref(), Some(GOOD));
    let edited = "name = 'web'\ncpus = 2";
    desk.report(a, vec![with_spec(edited)]);
    assert_eq!(accept(&mut desk, edited), Ok(()));
    assert_eq!(registered(&desk).as_deref(), Some(edited));
    assert!(!changed(&desk));
    desk.evacuate("a", "b");
    assert_eq!(prepared(&mut desk), [edited]);
    let busy = Refusal::VmBusy { vm: "web".into(), migration: MigrationId(1) };
    assert_eq!(accept(&mut desk, edited), Err(busy));
}

#[test]
fn another_host_registers_nothing_for_a_vm_it_does_not_own() {
    let mut desk = Desk::new();
    desk.connect("a1", "a", "boot-a", vec![with_spec(GOOD)]);
    let b = desk.connect("b1", "b", "boot-b", vec![with_spec(POISONED)]);
    assert_eq!(registered(&desk).as_deref(), Some(GOOD));
    // The owner has lost it: it is the other's now, its spec still the registered one.
    desk.connect(
        "a1",
        "a",
        "boot-a2",
        vec![VmReport { run_state: RunState::Dead, ..with_spec(GOOD) }],
    );
    desk.report(b, vec![with_spec(POISONED)]);
    assert_eq!(desk.vm("web").owner.to_string(), "b1");
    assert_eq!(registered(&desk).as_deref(), Some(GOOD));
    assert!(changed(&desk));
}

#[test]
fn a_dead_vms_spec_outlives_its_hosts_reboot_until_it_is_forgotten() {
    let mut desk = Desk::new();
    let a = desk.connect("a1", "a", "boot-a", vec![with_spec(GOOD)]);
    desk.handle(Event::Disconnected(a));
    // The host has lost its power: its agent lists what is left, perhaps without what was on a disk that is gone.
    let dead = |spec| VmReport { run_state: RunState::Dead, ..with_spec(spec) };
    desk.connect("a1", "a", "boot-a2", vec![dead("")]);
    desk.restart();
    let a = desk.connect("a1", "a", "boot-a2", vec![dead("")]);
    assert_eq!(desk.vm("web").condition, Condition::Dead);
    let specs = desk.fleet.vm_specs(&"web".into()).unwrap();
    assert_eq!((specs.registered.map(String::from).as_deref(), specs.reported), (Some(GOOD), None));
    // Started again in place of its dead self it is the same VM.
    desk.report(a, vec![with_spec(POISONED)]);
    assert_eq!(registered(&desk).as_deref(), Some(GOOD));
    assert!(changed(&desk));

    desk.report(a, vec![dead(POISONED)]);
    let (now, mut out) = (desk.now, Vec::new());
    desk.fleet.forget_vm(&"web".into(), now, &mut out).unwrap();
    desk.take(out);
    let unknown = Err(Refusal::UnknownVm("web".into()));
    assert_eq!(desk.fleet.vm_specs(&"web".into()), unknown);
    assert!(!format!("{:?}", desk.log).contains(GOOD), "nothing of it is kept");
    let other = "name = 'web'\ncpus = 2";
    desk.report(a, vec![with_spec(other)]);
    assert_eq!(registered(&desk).as_deref(), Some(other), "that is a new VM");
}

#[test]
fn a_dead_hosts_specs_are_kept_to_start_its_vms_elsewhere() {
    let mut desk = Desk::new();
    let a = desk.connect("a1", "a", "boot-a", vec![with_spec(GOOD)]);
    desk.handle(Event::Disconnected(a));
    let away = Err(Refusal::Disconnected("a1".into()));
    assert_eq!(accept(&mut desk, GOOD), away, "no agent stands behind it");
    let (now, mut out) = (desk.now, Vec::new());
    desk.fleet.declare_dead(&"a1".into(), None, now, &mut out).unwrap();
    desk.take(out);
    desk.restart();
    assert_eq!(registered(&desk).as_deref(), Some(GOOD));
    desk.connect("b1", "b", "boot-b", vec![with_spec(GOOD)]);
    assert_eq!(desk.vm("web").owner.to_string(), "b1");
    assert_eq!(registered(&desk).as_deref(), Some(GOOD));
    assert!(!changed(&desk));
}

#[test]
fn a_vm_that_has_moved_keeps_its_spec_at_its_new_owner() {
    let mut desk = Desk::new();
    let a = desk.connect("a1", "a", "boot-a", vec![with_spec(GOOD)]);
    let b = desk.connect("b1", "b", "boot-b", vec![]);
    desk.evacuate("a", "b");
    desk.complete(a, b, 1);
    desk.report(b, vec![with_spec(POISONED)]);
    desk.restart();
    desk.connect("b1", "b", "boot-b", vec![with_spec(POISONED)]);
    assert_eq!(desk.vm("web").owner.to_string(), "b1");
    assert_eq!(registered(&desk).as_deref(), Some(GOOD));
    assert!(changed(&desk));
}

#[test]
fn a_record_without_a_spec_takes_the_owners_next_word() {
    let old = r#"{"vm.v1":{"name":"web","memory_bytes":104857600,"owner":"a1","generation":1,"standing":"Stable"}}"#;
    let record: Record = serde_json::from_str(old).unwrap();
    let Record::Vm(vm) = &record else { panic!("not a VM") };
    assert_eq!(vm.spec, None);
    assert_eq!(serde_json::to_string(&record).unwrap(), old, "an older coordinator reads it, too");
    let mut desk = Desk::new();
    desk.log.insert(record.key(), record);
    desk.restart();
    assert_eq!(registered(&desk), None);
    let a = desk.connect("a1", "a", "boot-a", vec![with_spec("")]);
    assert_eq!(registered(&desk), None);
    desk.report(a, vec![with_spec(GOOD)]);
    desk.report(a, vec![with_spec(POISONED)]);
    assert_eq!(registered(&desk).as_deref(), Some(GOOD));
}
