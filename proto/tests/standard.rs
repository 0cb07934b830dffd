//! The rules that `buf lint` calls STANDARD, over the compiled descriptors: buf itself is not needed.
//!
//! Not looked at: what the compiler refuses anyway (syntax, numbers used twice), and comments.
#![allow(clippy::unwrap_used, reason = "a test stops at what it does not expect")]

use std::collections::BTreeMap;

use prost::Message;
use prost_types::{
    DescriptorProto, EnumDescriptorProto, FileDescriptorProto, FileDescriptorSet,
    MethodDescriptorProto, ServiceDescriptorProto, field_descriptor_proto::Label,
};

fn files() -> Vec<FileDescriptorProto> {
    FileDescriptorSet::decode(rackferry_proto::FILE_DESCRIPTOR_SET).unwrap().file
}

/// Everything that breaks a rule, as `RULE: where`.
fn lint(files: &[FileDescriptorProto]) -> Vec<String> {
    let mut broken = Vec::new();
    let mut used: BTreeMap<String, usize> = BTreeMap::new();
    for file in files {
        lint_file(file, &mut broken);
        for message in &file.message_type {
            lint_message(file.name(), message, &mut broken);
        }
        for one in &file.enum_type {
            lint_enum(file.name(), one, &mut broken);
        }
        for service in &file.service {
            lint_service(file.name(), service, &mut broken);
            for method in &service.method {
                lint_method(service, method, &mut broken);
                *used.entry(method.input_type().to_owned()).or_default() += 1;
                *used.entry(method.output_type().to_owned()).or_default() += 1;
            }
        }
    }
    let twice = used.into_iter().filter(|(_, times)| *times > 1);
    broken.extend(twice.map(|(name, _)| format!("RPC_REQUEST_RESPONSE_UNIQUE: {name}")));
    broken
}

fn lint_file(file: &FileDescriptorProto, broken: &mut Vec<String>) {
    let name = file.name();
    let mut rule = |holds: bool, rule: &str| {
        if !holds {
            broken.push(format!("{rule}: {name}"));
        }
    };
    let package = file.package();
    let (folder, base) = name.rsplit_once('/').unwrap_or(("", name));
    rule(file.syntax() == "proto3", "SYNTAX_SPECIFIED");
    rule(!package.is_empty(), "PACKAGE_DEFINED");
    rule(folder == package.replace('.', "/"), "PACKAGE_DIRECTORY_MATCH");
    rule(package.split('.').all(is_lower_snake), "PACKAGE_LOWER_SNAKE_CASE");
    let version = package.rsplit('.').next().and_then(|last| last.strip_prefix('v'));
    let numbered = |text: &str| text.parse::<u32>().is_ok_and(|number| number > 0);
    rule(version.is_some_and(numbered), "PACKAGE_VERSION_SUFFIX");
    rule(base.strip_suffix(".proto").is_some_and(is_lower_snake), "FILE_LOWER_SNAKE_CASE");
    rule(file.public_dependency.is_empty(), "IMPORT_NO_PUBLIC");
    rule(file.weak_dependency.is_empty(), "IMPORT_NO_WEAK");
}

fn lint_message(at: &str, message: &DescriptorProto, broken: &mut Vec<String>) {
    let place = format!("{at} {}", message.name());
    if !is_pascal(message.name()) {
        broken.push(format!("MESSAGE_PASCAL_CASE: {place}"));
    }
    for field in &message.field {
        if !is_lower_snake(field.name()) {
            broken.push(format!("FIELD_LOWER_SNAKE_CASE: {place}.{}", field.name()));
        }
        if field.label() == Label::Required {
            broken.push(format!("FIELD_NOT_REQUIRED: {place}.{}", field.name()));
        }
    }
    for one in &message.oneof_decl {
        // What is optional has one of its own, made by the compiler.
        if !is_lower_snake(one.name().trim_start_matches('_')) {
            broken.push(format!("ONEOF_LOWER_SNAKE_CASE: {place}.{}", one.name()));
        }
    }
    message.nested_type.iter().for_each(|inner| lint_message(&place, inner, broken));
    message.enum_type.iter().for_each(|inner| lint_enum(&place, inner, broken));
}

fn lint_enum(at: &str, one: &EnumDescriptorProto, broken: &mut Vec<String>) {
    let place = format!("{at} {}", one.name());
    let mut rule = |holds: bool, rule: &str| {
        if !holds {
            broken.push(format!("{rule}: {place}"));
        }
    };
    rule(is_pascal(one.name()), "ENUM_PASCAL_CASE");
    let options = one.options.clone().unwrap_or_default();
    rule(!options.allow_alias(), "ENUM_NO_ALLOW_ALIAS");
    let prefix = format!("{}_", upper_snake(one.name()));
    let first = one.value.first().unwrap();
    rule(first.number() == 0, "ENUM_FIRST_VALUE_ZERO");
    rule(first.name() == format!("{prefix}UNSPECIFIED"), "ENUM_ZERO_VALUE_SUFFIX");
    rule(one.value.iter().all(|value| value.name().starts_with(&prefix)), "ENUM_VALUE_PREFIX");
    let upper = |name: &str| is_lower_snake(&name.to_lowercase()) && name == name.to_uppercase();
    rule(one.value.iter().all(|value| upper(value.name())), "ENUM_VALUE_UPPER_SNAKE_CASE");
}

fn lint_service(at: &str, service: &ServiceDescriptorProto, broken: &mut Vec<String>) {
    if !is_pascal(service.name()) {
        broken.push(format!("SERVICE_PASCAL_CASE: {at} {}", service.name()));
    }
    if !service.name().ends_with("Service") {
        broken.push(format!("SERVICE_SUFFIX: {at} {}", service.name()));
    }
}

fn lint_method(
    service: &ServiceDescriptorProto,
    method: &MethodDescriptorProto,
    broken: &mut Vec<String>,
) {
    let (service, name) = (service.name(), method.name());
    if !is_pascal(name) {
        broken.push(format!("RPC_PASCAL_CASE: {service}.{name}"));
    }
    for (of, suffix) in [(method.input_type(), "Request"), (method.output_type(), "Response")] {
        let of = of.rsplit('.').next().unwrap();
        if of != format!("{name}{suffix}") && of != format!("{service}{name}{suffix}") {
            let rule = format!("RPC_{}_STANDARD_NAME", suffix.to_uppercase());
            broken.push(format!("{rule}: {service}.{name} has {of}"));
        }
    }
}

fn is_lower_snake(name: &str) -> bool {
    let word = |word: &str| {
        !word.is_empty() && word.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit())
    };
    name.starts_with(|c: char| c.is_ascii_lowercase()) && name.split('_').all(word)
}

fn is_pascal(name: &str) -> bool {
    name.starts_with(|c: char| c.is_ascii_uppercase())
        && name.chars().all(|c| c.is_ascii_alphanumeric())
}

/// `VmCondition` is `VM_CONDITION`.
fn upper_snake(name: &str) -> String {
    let mut snake = String::new();
    for (at, letter) in name.char_indices() {
        if at > 0 && letter.is_ascii_uppercase() {
            snake.push('_');
        }
        snake.push(letter.to_ascii_uppercase());
    }
    snake
}

#[test]
fn our_files_keep_the_rules() {
    let files = files();
    assert!(files.len() >= 8, "{}", files.len());
    assert_eq!(lint(&files), Vec::<String>::new());
}

#[test]
fn imports_are_used() {
    for file in files() {
        // A type of another file is written in full, and the packages are the same: so look where it is defined.
        let mut types = Vec::new();
        file.message_type.iter().for_each(|message| collect(message, &mut types));
        let methods = file.service.iter().flat_map(|service| &service.method);
        types.extend(methods.flat_map(|m| [m.input_type().to_owned(), m.output_type().to_owned()]));
        for import in &file.dependency {
            let all = files();
            let imported = all.iter().find(|other| other.name() == import).unwrap();
            let messages = imported.message_type.iter().map(|one| one.name());
            let enums = imported.enum_type.iter().map(|one| one.name());
            let mut names =
                messages.chain(enums).map(|name| format!(".{}.{name}", imported.package()));
            let is_used = names.any(|name| types.contains(&name));
            assert!(is_used, "IMPORT_USED: {} imports {import}", file.name());
        }
    }
}

fn collect(message: &DescriptorProto, types: &mut Vec<String>) {
    types.extend(message.field.iter().map(|field| field.type_name().to_owned()));
    message.nested_type.iter().for_each(|inner| collect(inner, types));
}

/// Breaks a rule in a copy of our files, and says what is found.
fn broken_by(change: impl FnOnce(&mut FileDescriptorProto)) -> Vec<String> {
    let mut files = files();
    let file = files.iter_mut().find(|file| file.name().ends_with("check.proto")).unwrap();
    change(file);
    let rules = lint(&files).into_iter();
    rules.map(|line| line.split(':').next().unwrap().to_owned()).collect()
}

#[test]
fn each_rule_finds_what_breaks_it() {
    assert_eq!(broken_by(|file| file.syntax = None), ["SYNTAX_SPECIFIED"]);
    let package = |file: &mut FileDescriptorProto| file.package = Some("rackferry.V1".into());
    let found = broken_by(package);
    for rule in ["PACKAGE_DIRECTORY_MATCH", "PACKAGE_LOWER_SNAKE_CASE", "PACKAGE_VERSION_SUFFIX"] {
        assert!(found.contains(&rule.to_owned()), "{rule}: {found:?}");
    }
    let name = |text: &str| Some(text.to_owned());
    let field =
        |file: &mut FileDescriptorProto| file.message_type[0].field[0].name = name("vmName");
    assert_eq!(broken_by(field), ["FIELD_LOWER_SNAKE_CASE"]);
    let message = |file: &mut FileDescriptorProto| file.message_type[3].name = name("target_check");
    assert_eq!(broken_by(message), ["MESSAGE_PASCAL_CASE"]);
    let zero =
        |file: &mut FileDescriptorProto| file.enum_type[0].value[0].name = name("SEVERITY_NONE");
    assert_eq!(broken_by(zero), ["ENUM_ZERO_VALUE_SUFFIX"]);
    let prefix = |file: &mut FileDescriptorProto| file.enum_type[0].value[1].name = name("BLOCKS");
    assert_eq!(broken_by(prefix), ["ENUM_VALUE_PREFIX"]);
    let lower = |file: &mut FileDescriptorProto| {
        file.enum_type[0].value[1].name = name("SEVERITY_blocks");
    };
    assert_eq!(broken_by(lower), ["ENUM_VALUE_UPPER_SNAKE_CASE"]);
    let service = |file: &mut FileDescriptorProto| file.service[0].name = name("Checks");
    assert_eq!(broken_by(service), ["SERVICE_SUFFIX"]);
    let other = |file: &mut FileDescriptorProto| {
        file.service[0].method[0].input_type = name(".rackferry.v1.ListVmsRequest");
    };
    assert_eq!(broken_by(other), ["RPC_REQUEST_STANDARD_NAME", "RPC_REQUEST_RESPONSE_UNIQUE"]);
}
