//! Which properties a CPU model has on this host, by QEMU's own word: what its version, its machine type, and under KVM the
//! host's CPU, microcode and kernel make of it. A QEMU that runs no guest is asked, once for each model.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Stdio;
use std::sync::Arc;

use anyhow::{Context, Result, bail, ensure};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::process::Command;

use super::told::Told;
use crate::storage::Storage;
use crate::vm::{Needs, Qemu, QemuUids, User};

/// Bytes of its answers; ten times what QEMU 10.0 says.
const ANSWER_BYTES_MAX: u64 = 4 << 20;
/// QEMU's own choice where a spec names no model.
const DEFAULT_MODEL: &str = "qemu64";

/// A CPU model as one QEMU makes it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Model {
    qemu: Qemu,
    machine: String,
    accel: String,
    /// With its options, as behind `-cpu`.
    cpu: String,
    kvm: bool,
}

impl Model {
    /// The model of a spec; `own` is this host's QEMU.
    pub fn of(needs: &Needs<'_>, own: &Qemu) -> Self {
        Self {
            qemu: needs.qemu.unwrap_or(own).clone(),
            machine: needs.machine.to_owned(),
            accel: needs.accel.to_owned(),
            kvm: needs.kvm,
            cpu: needs.cpu.unwrap_or(DEFAULT_MODEL).to_owned(),
        }
    }
}

/// What QEMUs have said of models. An agent lives no longer than its host's kernel does.
#[derive(Debug)]
pub struct Models {
    uids: QemuUids,
    told: Told<Model, Vec<String>>,
}

impl Models {
    /// None are known yet.
    pub fn new(uids: QemuUids) -> Self {
        Self { uids, told: Told::default() }
    }

    /// Names of the properties that the model has here, sorted. Cancel safe.
    ///
    /// # Errors
    /// QEMU does not know the model, or does not answer.
    pub async fn get(&self, storage: &Storage, model: &Model) -> Result<Arc<Vec<String>>> {
        let user = self.uids.in_force().map(|range| range.of_questions(model.kvm));
        self.told.get(storage, &model.qemu.binary, model, ask(model.clone(), user)).await
    }

    /// What [`Models::get`] said last; none if it was not asked.
    pub fn last(&self, model: &Model) -> Option<Arc<Vec<String>>> {
        self.told.last(model)
    }
}

async fn ask(model: Model, user: Option<User>) -> Result<Vec<String>> {
    let (name, questions) = questions(&model.cpu);
    let mut command = Command::new(&model.qemu.binary);
    for folder in &model.qemu.firmware {
        command.arg("-L").arg(folder);
    }
    let machine = format!("{},accel={}", model.machine, model.accel);
    command.args(["-S", "-nodefaults", "-no-user-config", "-display", "none", "-qmp", "stdio"]);
    command.args(["-machine", &machine]);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    if let Some(User { uid, gid }) = user {
        command.uid(uid).gid(gid);
    }
    let program = model.qemu.binary.display();
    let mut qemu = command.spawn().with_context(|| format!("cannot start {program}"))?;
    let (input, output, errors) = (qemu.stdin.take(), qemu.stdout.take(), qemu.stderr.take());
    let (mut said, mut complaints) = (Vec::new(), Vec::new());
    let talk = async {
        let (mut input, output, errors) =
            input.zip(output).zip(errors).map(|((i, o), e)| (i, o, e))?;
        let (mut output, mut errors) =
            (output.take(ANSWER_BYTES_MAX), errors.take(ANSWER_BYTES_MAX));
        let read = async {
            tokio::join!(output.read_to_end(&mut said), errors.read_to_end(&mut complaints))
        };
        // It may end before it has read everything: its answers say why.
        let _ = tokio::join!(input.write_all(questions.as_bytes()), read);
        qemu.wait().await.ok()
    };
    talk.await.with_context(|| format!("{program} says nothing of its CPUs"))?;
    let complaints = String::from_utf8_lossy(&complaints);
    names(&name, &said).with_context(|| format!("{program}: {}", complaints.trim()))
}

/// The model's name, and what QEMU is asked about it.
fn questions(cpu: &str) -> (String, String) {
    let mut parts = cpu.split(',').map(str::trim);
    let name = parts.next().unwrap_or_default().to_owned();
    let props: serde_json::Map<String, Value> = parts.filter_map(property).collect();
    let model = json!({ "name": name, "props": props });
    let all = [
        json!({ "execute": "qmp_capabilities" }),
        json!({
            "execute": "query-cpu-model-expansion",
            "arguments": { "type": "full", "model": model },
        }),
        json!({ "execute": "query-cpu-definitions" }),
        json!({ "execute": "quit" }),
    ];
    (name, all.iter().map(|one| format!("{one}\n")).collect())
}

/// An option of `-cpu` as QEMU's property; none if it says what becomes of a lack.
fn property(option: &str) -> Option<(String, Value)> {
    let (key, value) = match (option.strip_prefix('+'), option.strip_prefix('-')) {
        (Some(key), _) => (key, Value::Bool(true)),
        (_, Some(key)) => (key, Value::Bool(false)),
        _ => match option.split_once('=') {
            None => (option, Value::Bool(true)),
            Some((key, "on" | "yes" | "true")) => (key, Value::Bool(true)),
            Some((key, "off" | "no" | "false")) => (key, Value::Bool(false)),
            Some((key, value)) => match value.parse::<i64>() {
                Ok(number) => (key, number.into()),
                Err(_) => (key, value.into()),
            },
        },
    };
    (!key.is_empty() && !matches!(key, "enforce" | "check")).then(|| (key.to_owned(), value))
}

#[derive(Deserialize)]
#[serde(rename_all = "lowercase")]
enum Answer {
    Return(Value),
    Error { desc: String },
}

#[derive(Deserialize)]
struct Expansion {
    model: Expanded,
}

#[derive(Deserialize)]
struct Expanded {
    props: BTreeMap<String, Value>,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Definition {
    name: String,
    /// Not told by all architectures.
    unavailable_features: Option<Vec<String>>,
}

/// The properties that are true, and that this host can give.
fn names(model: &str, said: &[u8]) -> Result<Vec<String>> {
    let lines = said.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
    let mut answers = lines.filter_map(|line| serde_json::from_slice::<Answer>(line).ok());
    let mut next = |what| match answers.next() {
        Some(Answer::Return(value)) => Ok(value),
        Some(Answer::Error { desc }) => bail!("{what}: {desc}"),
        None => bail!("it ended before it said anything of {what}"),
    };
    next("its monitor")?;
    let expansion: Expansion = serde_json::from_value(next(model)?)?;
    let definitions: Vec<Definition> = serde_json::from_value(next("its CPU models")?)?;
    let own = definitions.into_iter().find(|definition| definition.name == model);
    let lacks: BTreeSet<String> =
        own.and_then(|own| own.unavailable_features).unwrap_or_default().into_iter().collect();
    let props = expansion.model.props.into_iter();
    let has = |(name, value): (String, Value)| {
        (value == Value::Bool(true) && !lacks.contains(&name) && is_feature(&name)).then_some(name)
    };
    let names: Vec<String> = props.filter_map(has).collect();
    ensure!(!names.is_empty(), "{model} has no property at all");
    Ok(names)
}

/// Properties of these names say how QEMU goes about it, which the machine type pins; they come and go with versions.
fn is_feature(name: &str) -> bool {
    !["x-", "legacy-"].iter().any(|prefix| name.starts_with(prefix)) && name != "realized"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_of_a_model_are_asked_as_properties() {
        let cpu = "EPYC,+avx,-svm,pmu=off,level=13,vendor=GenuineIntel,kvm,enforce,check=off";
        let (name, text) = questions(cpu);
        assert_eq!(name, "EPYC");
        let asked: Value = serde_json::from_str(text.lines().nth(1).unwrap()).unwrap();
        let props = json!({
            "avx": true, "svm": false, "pmu": false, "level": 13, "vendor": "GenuineIntel", "kvm": true,
        });
        assert_eq!(asked["arguments"]["model"], json!({ "name": "EPYC", "props": props }));
    }

    fn said(props: &Value, lacks: &[&str]) -> Vec<u8> {
        let lines = [
            json!({ "QMP": { "version": {} } }),
            json!({ "return": {} }),
            json!({ "timestamp": {}, "event": "RESUME" }),
            json!({ "return": { "model": { "name": "M", "props": props } } }),
            json!({ "return": [{ "name": "M", "unavailable-features": lacks, "typename": "t" }] }),
            json!({ "return": {} }),
        ];
        lines.iter().map(|line| format!("{line}\r\n")).collect::<String>().into_bytes()
    }

    #[test]
    fn a_model_has_what_is_true_and_what_the_host_can_give() {
        let props = json!({
            "avx": true, "avx512f": true, "svm": false, "level": 13, "legacy-cache": true, "x-pv": true,
        });
        assert_eq!(names("M", &said(&props, &["avx512f"])).unwrap(), ["avx"]);
        let refused = b"{\"return\": {}}\n{\"error\": {\"class\": \"GenericError\", \"desc\": \"no model M\"}}\n";
        assert_eq!(names("M", refused).unwrap_err().to_string(), "M: no model M");
        names("M", b"").unwrap_err();
    }
}
