//! The probes that a trace would place, and the allocators that they would see.

use std::{os::unix::fs::FileExt as _, sync::Arc, time::Instant};

use super::{
    findings::{AllocatorFound, ProbePlanned},
    gather::nanoseconds,
};
use crate::{
    probes::{
        decode,
        plan::{self, Plan, PlanError},
    },
    session::arm,
    target::{AddressSpace, Module},
};

/// Longest instruction of x86-64 in bytes.
const LONGEST: usize = 15;

/// What would be probed.
#[derive(Debug, Default)]
pub struct Probing {
    /// The allocators found.
    pub allocators: Vec<AllocatorFound>,
    /// The probes.
    pub probes: Vec<ProbePlanned>,
    /// What would not be seen.
    pub notes: Vec<String>,
    /// Why nothing would be traced.
    pub refused: Option<String>,
    /// Nanoseconds that the plan took.
    pub plan_ns: u64,
}

/// Plans as a trace does.
pub fn probing(space: &AddressSpace) -> Probing {
    let started = Instant::now();
    let (modules, planned) = arm::plan_files(&space.executable_modules());
    let plan_ns = nanoseconds(started);
    Probing {
        plan_ns,
        ..match planned {
            Ok(plan) => of_plan(plan, &modules),
            Err(nothing) => none(&nothing),
        }
    }
}

fn of_plan(plan: Plan, modules: &[Arc<Module>]) -> Probing {
    let traced = plan
        .allocators
        .into_iter()
        .map(|name| AllocatorFound { name, traced: true });
    let untraced = plan
        .untraced
        .into_iter()
        .map(|(_, name)| AllocatorFound { name, traced: false });
    Probing {
        allocators: traced.chain(untraced).collect(),
        probes: plan
            .probes
            .iter()
            .filter_map(|probe| Some(planned(probe, modules.get(probe.module)?)))
            .collect(),
        notes: plan.notes,
        ..Probing::default()
    }
}

fn none(nothing: &PlanError) -> Probing {
    Probing {
        refused: Some(nothing.to_string()),
        ..Probing::default()
    }
}

fn planned(probe: &plan::Probe, module: &Module) -> ProbePlanned {
    let mut bytes = [0; LONGEST];
    let read = module.file().read_at(&mut bytes, probe.offset).unwrap_or(0);
    let code = bytes.get(..read).unwrap_or_default();
    let address = module.headers().virtual_address(probe.offset, true);
    ProbePlanned {
        function: probe.function.clone(),
        module: module.name.clone(),
        offset: probe.offset,
        instruction: decode::instruction(code, address.unwrap_or(probe.offset)),
        emulated: probe.emulated,
        returns: probe.spec.needs_return(),
    }
}
