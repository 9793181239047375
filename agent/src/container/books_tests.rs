//! Ids are taken once, and nothing piles up.

use super::*;
use crate::process::Streams;
use crate::reaper::Reaper;

fn process(reaper: &Reaper, pid: i32) -> Arc<Process> {
    let since = reaper.epoch();
    Arc::new(Process { watched: reaper.adopt(pid, since), streams: Streams::closed() })
}

fn instance(reaper: &Reaper) -> Instance {
    let init = process(reaper, 1_000_000);
    Instance::new("c1", "web", "/nonexistent".into(), "/pod/c1".into(), Rights::all(), init, Box::new(()))
}

#[test]
fn ended_containers_that_nobody_removes_are_bounded() {
    let containers = Containers::default();
    for id in 0..MAX_CONTAINERS {
        containers.insert(&format!("c{id}"), Container::Pause(Arc::default())).unwrap();
    }
    assert!(matches!(containers.room(), Err(Error::Busy(_))));
    assert!(matches!(containers.reserve("more"), Err(Error::Busy(_))));
    containers.remove("c0");
    containers.room().unwrap();
}

#[test]
fn an_id_that_is_being_made_is_taken_and_unknown() {
    let containers = Containers::default();
    let reserved = containers.reserve("c1").unwrap();
    assert!(matches!(containers.reserve("c1"), Err(Error::Refused(_))));
    assert!(matches!(containers.find("c1"), Err(Error::InvalidArgument(_))));
    drop(reserved);
    containers.reserve("c1").unwrap().fill(Container::Pause(Arc::default()));
    // A refused duplicate leaves the first one alone.
    assert!(containers.reserve("c1").is_err());
    assert!(containers.find("c1").is_ok());
    assert!(matches!(containers.reserve("../c1"), Err(Error::InvalidArgument(_))));
}

#[test]
fn the_exec_id_of_a_living_process_is_taken() {
    let reaper = Reaper::default();
    let instance = instance(&reaper);
    instance.reserve_exec("e1").unwrap();
    assert!(instance.reserve_exec("e1").is_err(), "it is being started");
    let running = process(&reaper, 1_000_001);
    instance.settle_exec("e1", Some(running.clone()));
    instance.note_waited(Target::Exec("e1"));
    assert!(instance.reserve_exec("e1").is_err(), "it runs");
}

#[test]
fn running_processes_are_bounded_and_never_forgotten() {
    let reaper = Reaper::default();
    let instance = instance(&reaper);
    for number in 0..MAX_EXECS {
        instance.reserve_exec(&format!("e{number}")).unwrap();
        instance.settle_exec(&format!("e{number}"), Some(process(&reaper, 2_000_000 + number as i32)));
    }
    assert!(matches!(instance.reserve_exec("more"), Err(Error::Busy(_))));
    instance.process(Target::Exec("e0")).unwrap();
}

#[test]
fn only_a_stage_that_it_is_in_is_left() {
    let reaper = Reaper::default();
    let instance = instance(&reaper);
    instance.advance(&[Stage::Created], Stage::Starting).unwrap();
    assert_eq!(instance.advance(&[Stage::Created], Stage::Starting), Err(Stage::Starting));
}
