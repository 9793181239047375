//! Limits as a request names them, turned into writes of kernel files: everything is checked before the
//! first one is written. A value of 0 is one that the request doesn't name, as on the wire.
//!
//! Device rules stay as they were at the container's making, and so does what only classifies packets.

mod blkio;
mod cpu;
mod memory;
mod values;

use std::path::PathBuf;

use protocols::oci::LinuxResources;

pub use values::processors;

use crate::cgroup::{Cgroup, Place, write};
use crate::error::{ResourceError, Result};
use crate::hierarchy::Version;
use values::{malformed, page_size};

/// Most entries of a list in one request.
const MAX_LIST: usize = 256;

/// One file of the kernel's and its new text.
#[derive(Debug, PartialEq, Eq)]
struct Write {
    path: PathBuf,
    value: String,
}

/// Writes in the order in which the kernel takes them.
#[derive(Debug, Default)]
struct Plan(Vec<Write>);

impl Plan {
    /// A value that the request names: where there is no file for it, the kernel can't do it.
    #[expect(clippy::needless_pass_by_value, reason = "numbers and texts alike, most of them made here")]
    fn add(&mut self, cgroup: &Cgroup, controller: &str, file: &str, value: impl ToString) -> Result<()> {
        let path = cgroup.present(controller, file).ok_or_else(|| ResourceError::Missing(file.to_owned()))?;
        self.0.push(Write { path, value: value.to_string() });
        Ok(())
    }
}

impl Cgroup {
    /// Sets limits.
    pub fn update(&self, wanted: &LinuxResources) -> Result<()> {
        let plan = self.plan(wanted)?;
        plan.0.iter().try_for_each(|step| write(&step.path, &step.value))
    }

    /// Checks limits without setting any.
    pub fn check(&self, wanted: &LinuxResources) -> Result<()> {
        self.plan(wanted).map(|_| ())
    }

    fn plan(&self, wanted: &LinuxResources) -> Result<Plan> {
        if !self.exists() {
            return Err(ResourceError::State("the container's cgroup is gone".into()));
        }
        let mut plan = Plan::default();
        if let Some(cpu) = wanted.CPU.as_ref() {
            self.plan_cpu(cpu, &mut plan)?;
        }
        if let Some(memory) = wanted.Memory.as_ref() {
            self.plan_memory(memory, &mut plan)?;
        }
        if let Some(pids) = wanted.Pids.as_ref() {
            let limit = if pids.Limit > 0 { pids.Limit.to_string() } else { "max".to_owned() };
            plan.add(self, "pids", "pids.max", limit)?;
        }
        if let Some(blkio) = wanted.BlockIO.as_ref() {
            self.plan_blkio(blkio, &mut plan)?;
        }
        if wanted.HugepageLimits.len() > MAX_LIST {
            return Err(malformed("hugepage limits", "too many"));
        }
        for limit in &wanted.HugepageLimits {
            let size = page_size(&limit.Pagesize)?;
            let file = match self.version() {
                Version::V1 => format!("hugetlb.{size}.limit_in_bytes"),
                Version::V2 => format!("hugetlb.{size}.max"),
            };
            // The kubelet sends 0 for every size that the host has; the guest may have none.
            if limit.Limit != 0 || self.present("hugetlb", &file).is_some() {
                plan.add(self, "hugetlb", &file, limit.Limit)?;
            }
        }
        Ok(plan)
    }

    /// After processors were plugged in: version 1 keeps a list of processors in every cgroup, so that
    /// the new ones have to be added on the way down. `own` is the list that the container was made
    /// with, empty for all. Version 2 follows by itself.
    pub fn widen_cpuset(&self, online: &str, own: &str) -> Result<()> {
        let Place::Controllers { trees, relative } = &self.place else {
            return Ok(());
        };
        let Some(root) = trees.get("cpuset") else {
            return Ok(());
        };
        let mut directory = root.clone();
        let parts = relative.components().count();
        for (number, part) in relative.components().enumerate() {
            directory.push(part);
            let last = number + 1 == parts;
            let list = if last && !own.is_empty() { own } else { online };
            processors(list)?;
            write(&directory.join("cpuset.cpus"), list)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
