//! The generated descriptors are exactly what `testdata/wire.tsv` says goes over the wire: nothing
//! missing, nothing renumbered, nothing else.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use std::collections::BTreeSet;

use protobuf::descriptor::field_descriptor_proto::{Label, Type};
use protobuf::descriptor::{DescriptorProto, EnumDescriptorProto, FieldDescriptorProto, FileDescriptorProto};
use protocols::{agent, cdh, csi, health, hypervisor, oci, types};

const TABLE: &str = include_str!("../testdata/wire.tsv");

/// Facts as lines, so that a difference reads as the table does.
type Facts = BTreeSet<String>;

fn table() -> Facts {
    let mut facts = Facts::new();
    let (mut file, mut message) = (String::new(), String::new());
    for line in TABLE.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
        let cells: Vec<&str> = line.split('\t').collect();
        let fact = match cells[0] {
            "package" => {
                file = cells[2].to_owned();
                format!("{file}: package {}", cells[1])
            }
            "rpc" => format!("{file}: rpc {} {} {} {}", cells[1], cells[2], cells[3], cells[4]),
            "enum" => {
                for value in &cells[2..] {
                    facts.insert(format!("{file}: enum {} {value}", cells[1]));
                }
                format!("{file}: enum {}", cells[1])
            }
            "message" => {
                message = cells[1].to_owned();
                format!("{file}: message {message}")
            }
            "" => format!("{file}: field {message} {} {} {}", cells[1], cells[2], cells[3]),
            other => panic!("unknown row {other}"),
        };
        assert!(facts.insert(fact.clone()), "twice in the table: {fact}");
    }
    facts
}

fn generated() -> Facts {
    let mut facts = Facts::new();
    for file in [
        agent::file_descriptor(),
        cdh::file_descriptor(),
        csi::file_descriptor(),
        health::file_descriptor(),
        hypervisor::file_descriptor(),
        oci::file_descriptor(),
        types::file_descriptor(),
    ] {
        describe(file.proto(), &mut facts);
    }
    facts
}

fn describe(file: &FileDescriptorProto, facts: &mut Facts) {
    let (name, package) = (file.name(), file.package());
    facts.insert(format!("{name}: package {package}"));
    for service in &file.service {
        for method in &service.method {
            assert!(!method.client_streaming() && !method.server_streaming());
            let (input, output) = (dotless(method.input_type()), dotless(method.output_type()));
            facts.insert(format!(
                "{name}: rpc {package}.{} {} {input} {output}",
                service.name(),
                method.name()
            ));
        }
    }
    file.enum_type.iter().for_each(|e| describe_enum(name, package, e, facts));
    file.message_type.iter().for_each(|m| describe_message(name, package, m, facts));
}

fn describe_enum(file: &str, scope: &str, descriptor: &EnumDescriptorProto, facts: &mut Facts) {
    let name = format!("{scope}.{}", descriptor.name());
    facts.insert(format!("{file}: enum {name}"));
    for value in &descriptor.value {
        facts.insert(format!("{file}: enum {name} {}={}", value.name(), value.number()));
    }
}

fn describe_message(file: &str, scope: &str, message: &DescriptorProto, facts: &mut Facts) {
    let name = format!("{scope}.{}", message.name());
    facts.insert(format!("{file}: message {name}"));
    for field in &message.field {
        let kind = kind(&name, message, field);
        facts.insert(format!("{file}: field {name} {} {} {kind}", field.number(), field.name()));
    }
    message.enum_type.iter().for_each(|e| describe_enum(file, &name, e, facts));
    for nested in message.nested_type.iter().filter(|nested| !nested.options.map_entry()) {
        describe_message(file, &name, nested, facts);
    }
}

fn kind(scope: &str, message: &DescriptorProto, field: &FieldDescriptorProto) -> String {
    let plain = scalar(field);
    if field.label() == Label::LABEL_REPEATED {
        let entry = message
            .nested_type
            .iter()
            .find(|nested| nested.options.map_entry() && plain == format!("{scope}.{}", nested.name()));
        return match entry {
            Some(entry) => format!("map {} {}", scalar(&entry.field[0]), scalar(&entry.field[1])),
            None => format!("repeated {plain}"),
        };
    }
    if field.proto3_optional() {
        return format!("optional {plain}");
    }
    match field.oneof_index {
        Some(index) => format!("oneof {} {plain}", message.oneof_decl[index as usize].name()),
        None => plain,
    }
}

fn scalar(field: &FieldDescriptorProto) -> String {
    match field.type_() {
        Type::TYPE_MESSAGE | Type::TYPE_ENUM => dotless(field.type_name()),
        other => format!("{other:?}").trim_start_matches("TYPE_").to_lowercase(),
    }
}

fn dotless(name: &str) -> String {
    name.trim_start_matches('.').to_owned()
}

#[test]
fn generated_code_is_what_the_table_says() {
    let (table, generated) = (table(), generated());
    let missing: Vec<_> = table.difference(&generated).collect();
    let extra: Vec<_> = generated.difference(&table).collect();
    assert!(missing.is_empty() && extra.is_empty(), "missing: {missing:#?}\nextra: {extra:#?}");
}

#[test]
fn the_table_is_whole() {
    let count = |prefix: &str| table().iter().filter(|fact| fact.contains(prefix)).count();
    assert_eq!(count(": rpc grpc.AgentService "), 42);
    assert_eq!(count(": rpc grpc.Health "), 2);
    assert_eq!(count(": rpc api."), 4);
    assert_eq!(count(": rpc hypervisor.Hypervisor "), 4);
}
