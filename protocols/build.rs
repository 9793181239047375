//! Generates messages and async ttrpc services from `proto/`, without protoc.

use std::error::Error;
use std::path::{Path, PathBuf};

use ttrpc_codegen::{Codegen, Customize, ProtobufCustomize};

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
