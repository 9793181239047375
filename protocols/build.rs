//! Generates messages and async ttrpc services from `proto/`, without protoc.
//!
//! Messages of the agent's API serialize the way policies written for the stock agent expect them: fields
//! under their Rust names (`OCI`, `type_`), an absent message as null, an enumeration as its number, bytes
//! as an array of numbers.

use std::error::Error;
use std::path::{Path, PathBuf};

use protobuf::descriptor::field_descriptor_proto::Type;
use protobuf::reflect::{FieldDescriptor, MessageDescriptor, OneofDescriptor};
use ttrpc_codegen::{Codegen, Customize, ProtobufCustomize, ProtobufCustomizeCallback};

/// File stem, and whether it defines services.
const FILES: [(&str, bool); 7] = [
    ("agent", true),
    ("confidential_data_hub", true),
    ("csi", false),
    ("health", true),
    ("oci", false),
    ("remote", true),
    ("types", false),
];

/// Adds serde's attributes.
struct Serialize;

impl Serialize {
    const DERIVE: &str = "#[derive(::serde::Serialize)]";

    fn before(text: &str) -> ProtobufCustomize {
        ProtobufCustomize::default().before(text)
    }
}

impl ProtobufCustomizeCallback for Serialize {
    fn message(&self, _: &MessageDescriptor) -> ProtobufCustomize {
        Self::before(Self::DERIVE)
    }

    fn oneof(&self, _: &OneofDescriptor) -> ProtobufCustomize {
        Self::before(Self::DERIVE)
    }

    fn field(&self, field: &FieldDescriptor) -> ProtobufCustomize {
        if !field.is_singular() {
            return ProtobufCustomize::default();
        }
        match field.proto().type_() {
            Type::TYPE_ENUM => Self::before("#[serde(serialize_with = \"crate::generated::enumeration\")]"),
            Type::TYPE_MESSAGE => Self::before("#[serde(serialize_with = \"crate::generated::message\")]"),
            _ => ProtobufCustomize::default(),
        }
    }

    fn special_field(&self, _: &MessageDescriptor, _: &str) -> ProtobufCustomize {
        Self::before("#[serde(skip)]")
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed=proto");
    let out = PathBuf::from(std::env::var_os("OUT_DIR").ok_or("OUT_DIR is not set")?);
    let proto = Path::new("proto");
    Codegen::new()
        .out_dir(&out)
        .inputs(FILES.iter().map(|(stem, _)| proto.join(format!("{stem}.proto"))))
        .include(proto)
        .rust_protobuf()
        .rust_protobuf_customize(ProtobufCustomize::default().gen_mod_rs(false))
        .rust_protobuf_customize_callback(Serialize)
        .customize(Customize { async_all: true, ..Default::default() })
        .run()?;

    // The generated files carry inner attributes, so they can only be modules of their own; this
    // list lets the crate include them as such.
    let mut modules = String::new();
    for (stem, services) in FILES {
        modules.push_str(&format!("pub mod {stem};\n"));
        if services {
            modules.push_str(&format!("pub mod {stem}_ttrpc;\n"));
        }
    }
    std::fs::write(out.join("generated.rs"), modules)?;
    Ok(())
}
