//! Makes requests: by the rules of a message, by unexpected values, and damaged afterwards.

use std::collections::HashMap;

use prost::{
    Message,
    encoding::{WireType, encode_key, encode_varint},
};
use prost_types::{
    DescriptorProto, FieldDescriptorProto, FileDescriptorSet, field_descriptor_proto::Type,
};
use rackferry_proto::FILE_DESCRIPTOR_SET;
use rand::{Rng, SeedableRng, rngs::StdRng, seq::IndexedRandom};

/// The services for clients. Agents and coordinators have theirs, with streams of their own.
const SERVICES: [&str; 6] = [
    "CheckService",
    "ClusterService",
    "EnrolmentService",
    "EvacuationService",
    "InventoryService",
    "MigrationService",
];
/// Names that are known, of things and of nothing; what is no name at all.
const NAMES: [&str; 24] = [
    "a",
    "b",
    "a1",
    "b1",
    "web",
    "db",
    "core0",
    "evac-1",
    "evac-2",
    "mig-1",
    "mig-2",
    "mig-3",
    "first",
    "second",
    "",
    " ",
    "evac-",
    "evac--1",
    "mig-18446744073709551616",
    "../../etc/passwd",
    "\u{0}",
    "\u{202e}bew",
    "\u{1f4a5}",
    "%s%n",
];
/// Larger than a request may be.
const TOO_LARGE: usize = 5 << 20;
/// Messages within messages.
const DEPTH: u32 = 6;

/// A method that clients may call.
pub struct Method {
    pub path: String,
    input: String,
}

fn descriptors() -> FileDescriptorSet {
    FileDescriptorSet::decode(FILE_DESCRIPTOR_SET).unwrap()
}

/// The services for clients, by their full names.
pub fn services() -> Vec<String> {
    SERVICES.iter().map(|name| format!("rackferry.v1.{name}")).collect()
}

/// Every method of theirs.
pub fn methods() -> Vec<Method> {
    let mut methods = Vec::new();
    for file in descriptors().file {
        for service in file.service.iter().filter(|one| SERVICES.contains(&one.name())) {
            methods.extend(service.method.iter().map(|method| Method {
                path: format!("/{}.{}/{}", file.package(), service.name(), method.name()),
                input: method.input_type().to_owned(),
            }));
        }
    }
    assert!(methods.len() >= 25, "{}", methods.len());
    methods
}

/// Makes requests from a seed.
pub struct Forge {
    rng: StdRng,
    messages: HashMap<String, DescriptorProto>,
}

impl Forge {
    pub fn new(seed: u64) -> Self {
        let mut messages = HashMap::new();
        for file in descriptors().file {
            for message in file.message_type {
                messages.insert(
                    format!(".{}.{}", file.package.as_ref().unwrap(), message.name()),
                    message,
                );
            }
        }
        Self { rng: StdRng::seed_from_u64(seed), messages }
    }

    /// A request for a method, and how it was made.
    pub fn request(&mut self, method: &Method) -> (Vec<u8>, &'static str) {
        let mut bytes = Vec::new();
        match self.rng.random_range(0..20) {
            0 => return (bytes, "empty"),
            1 => return (self.noise(300), "noise"),
            2 => {
                // Once in a while: it takes time.
                let length = if self.rng.random_bool(0.1) { TOO_LARGE } else { 50_000 };
                encode_key(1, WireType::LengthDelimited, &mut bytes);
                encode_varint(length as u64, &mut bytes);
                bytes.resize(bytes.len() + length, b'x');
                return (bytes, "large");
            }
            _ => self.message(&method.input, DEPTH, &mut bytes),
        }
        if bytes.is_empty() {
            return (bytes, "nothing set");
        }
        let at = self.rng.random_range(0..bytes.len());
        match self.rng.random_range(0..10) {
            0 => {
                bytes[at] ^= 1 << self.rng.random_range(0..8);
                (bytes, "a bit flipped")
            }
            1 => {
                bytes.truncate(at);
                (bytes, "cut")
            }
            2 => {
                let noise = self.noise(20);
                bytes.splice(at..at, noise);
                (bytes, "noise within")
            }
            3 => {
                let again = bytes.clone();
                bytes.extend(again);
                (bytes, "twice")
            }
            _ => (bytes, "by the rules"),
        }
    }

    fn noise(&mut self, most: usize) -> Vec<u8> {
        let length = self.rng.random_range(0..=most);
        (0..length).map(|_| self.rng.random()).collect()
    }

    fn message(&mut self, name: &str, depth: u32, to: &mut Vec<u8>) {
        let fields = self.messages[name].field.clone();
        for field in &fields {
            let times = match (field.label().as_str_name(), self.rng.random_range(0..100)) {
                ("LABEL_REPEATED", 0) => 1500,
                ("LABEL_REPEATED", 1..70) => self.rng.random_range(1..4),
                (_, 0..75) => 1,
                _ => 0,
            };
            for _ in 0..times {
                self.field(field, depth, to);
            }
        }
    }

    fn field(&mut self, field: &FieldDescriptorProto, depth: u32, to: &mut Vec<u8>) {
        let number = field.number() as u32;
        match field.r#type() {
            Type::Message if depth > 0 => {
                let mut inner = Vec::new();
                self.message(field.type_name(), depth - 1, &mut inner);
                delimited(number, &inner, to);
            }
            Type::Message => {}
            Type::String | Type::Bytes => {
                let text = self.text();
                delimited(number, &text, to);
            }
            Type::Double | Type::Fixed64 | Type::Sfixed64 => {
                encode_key(number, WireType::SixtyFourBit, to);
                to.extend(self.rng.random::<[u8; 8]>());
            }
            Type::Float | Type::Fixed32 | Type::Sfixed32 => {
                encode_key(number, WireType::ThirtyTwoBit, to);
                to.extend(self.rng.random::<[u8; 4]>());
            }
            _ => {
                encode_key(number, WireType::Varint, to);
                encode_varint(self.number(), to);
            }
        }
    }

    fn number(&mut self) -> u64 {
        match self.rng.random_range(0..6) {
            0..3 => self.rng.random_range(0..4),
            3 => u64::from(u32::MAX) + self.rng.random_range(0..2),
            4 => u64::MAX,
            _ => self.rng.random(),
        }
    }

    fn text(&mut self) -> Vec<u8> {
        match self.rng.random_range(0..40) {
            0 => self.noise(40),
            1 => NAMES.choose(&mut self.rng).unwrap().repeat(20_000).into_bytes(),
            2 => vec![0xff; 256],
            3 => b"version: 1\nracks: [{name: a}, {name: a}]".to_vec(),
            _ => NAMES.choose(&mut self.rng).unwrap().as_bytes().to_vec(),
        }
    }
}

fn delimited(number: u32, bytes: &[u8], to: &mut Vec<u8>) {
    encode_key(number, WireType::LengthDelimited, to);
    encode_varint(bytes.len() as u64, to);
    to.extend_from_slice(bytes);
}
