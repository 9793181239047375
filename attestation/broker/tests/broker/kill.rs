//! A broker that is killed in the middle of a release, and started again: the guest gets its key, and no second
//! guest gets one beyond what the policy allows.
//!
//! The broker is this program once more, as a child, with a log that kills it (SIGKILL) at a given line.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use axum::http::StatusCode;
use protocols::owner::Releases;
use protocols::rcar::{ATTEST_PATH, AUTH_PATH};
use protocols::refusal::Code;
use sealpod_broker::broker::Broker;
use sealpod_broker::clock::Clock;
use sealpod_broker::config::Config;
use sealpod_broker::server;
use tempfile::TempDir;
use tokio::sync::watch;

use crate::client;
use crate::guest::{Guest, auth_request};
use crate::support::{Answer, Pushed, World, policy, policy_statement, resource_path};

const CONFIG: &str = "SEALPOD_TEST_BROKER_CONFIG";
const KILL_AT: &str = "SEALPOD_TEST_BROKER_KILL_AT";

/// Kills this process at a line of the log.
struct KillAt(String);

impl slog::Drain for KillAt {
    type Ok = ();
    type Err = slog::Never;

    fn log(&self, record: &slog::Record<'_>, _: &slog::OwnedKVList) -> Result<(), slog::Never> {
        if record.msg().to_string() == self.0 {
            rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL).unwrap();
        }
        Ok(())
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "the child of the tests below"]
async fn child() {
    let Some(config) = std::env::var_os(CONFIG) else { return };
    let log = slog::Logger::root(KillAt(std::env::var(KILL_AT).unwrap()), slog::o!());
    let config = Config::load(Path::new(&config)).unwrap();
    let started = Broker::start(&config, Clock::system(), log).await.unwrap();
    let listener = server::bind(config.listen).await.unwrap();
    println!("ready {}", listener.local_addr().unwrap());
    let (_stop, stopped) = watch::channel(false);
    server::serve(started.broker, started.tls, listener, stopped).await;
}

/// A state directory with a key of one release, and the brokers that serve it.
struct Scene {
    dir: TempDir,
    config: Config,
    pushed: Pushed,
}

struct Serving {
    process: Child,
    address: SocketAddr,
}

impl Drop for Serving {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Scene {
    async fn new() -> Self {
        let world = World::new().await;
        let pushed = world.push(1).await;
        let mut once = policy();
        once.releases = Releases::Once;
        let answer = world.set_policy(policy_statement(&world.owner, 2, once)).await;
        assert_eq!(answer.status, StatusCode::OK, "{answer:?}");
        let (dir, config) = world.stop().await;
        let text = "listen = \"127.0.0.1:0\"\nstate = \"state\"\nserver_names = [\"broker.example\"]\n\
            [trust]\nemulated_roots = [\"ark.pem\"]\n";
        std::fs::write(dir.path().join("broker.toml"), text).unwrap();
        Self { dir, config, pushed }
    }

    fn serve(&self, kill_at: &str) -> Serving {
        let mut process = Command::new(std::env::current_exe().unwrap())
            .args(["kill::child", "--exact", "--ignored", "--nocapture"])
            .env(CONFIG, self.dir.path().join("broker.toml"))
            .env(KILL_AT, kill_at)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(process.stdout.take().unwrap()).lines();
        let address = lines
            .map_while(Result::ok)
            .find_map(|line| line.split_once("ready ").and_then(|(_, address)| address.trim().parse().ok()))
            .unwrap();
        Serving { process, address }
    }

    /// What a guest does to get its key; none if the broker went away.
    async fn ask(&self, broker: &Serving, guest: &Guest) -> Option<Answer> {
        let ca = self.config.state.join("ca.pem");
        let send = async |request: Vec<u8>| client::send(&ca, broker.address, &request).await;
        let auth = send(client::request("POST", AUTH_PATH, "", &auth_request().to_string())).await?;
        let cookie = format!("cookie: {}\r\n", auth.cookie());
        let evidence = guest.attest_request(auth.body["nonce"].as_str().unwrap());
        let evidence = serde_json::to_string(&evidence).unwrap();
        let attested = send(client::request("POST", ATTEST_PATH, &cookie, &evidence)).await?;
        assert_eq!(attested.status, StatusCode::OK, "{attested:?}");
        send(client::request("GET", &resource_path(self.pushed.key_id()), &cookie, "")).await
    }

    /// The first guest gets its key from a broker that was started again, and the second doesn't.
    async fn holds(&self, first: &Guest, second: &Guest) {
        let broker = self.serve("never");
        assert_eq!(self.ask(&broker, first).await.unwrap().open(first), self.pushed.key);
        assert_eq!(self.ask(&broker, second).await.unwrap().code(), Code::ReleaseLimit);
        assert_eq!(self.ask(&broker, first).await.unwrap().open(first), self.pushed.key);
    }
}

fn was_killed(broker: &mut Serving) -> bool {
    broker.process.wait().unwrap().signal() == Some(9)
}

#[tokio::test]
async fn killed_before_the_commit_nothing_was_released() {
    let scene = Scene::new().await;
    let (first, second) = (scene.pushed.guest(), scene.pushed.guest());
    let mut broker = scene.serve("releases decided");
    assert!(scene.ask(&broker, &first).await.is_none());
    assert!(was_killed(&mut broker));
    // Whoever asks next is first.
    scene.holds(&second, &first).await;
}

#[tokio::test]
async fn killed_between_commit_and_reply_the_same_guest_gets_its_key() {
    let scene = Scene::new().await;
    let (first, second) = (scene.pushed.guest(), scene.pushed.guest());
    let mut broker = scene.serve("releases recorded");
    assert!(scene.ask(&broker, &first).await.is_none());
    assert!(was_killed(&mut broker));
    scene.holds(&first, &second).await;
}

#[tokio::test]
async fn killed_before_the_delivery_is_marked_the_same_guest_gets_its_key() {
    let scene = Scene::new().await;
    let (first, second) = (scene.pushed.guest(), scene.pushed.guest());
    let mut broker = scene.serve("writing the journal");
    // The answer may or may not have left before.
    let _ = scene.ask(&broker, &first).await;
    assert!(was_killed(&mut broker));
    scene.holds(&first, &second).await;
}

#[tokio::test]
async fn killed_after_a_reply_that_was_lost_the_same_guest_gets_its_key() {
    let scene = Scene::new().await;
    let (first, second) = (scene.pushed.guest(), scene.pushed.guest());
    let mut broker = scene.serve("journal written");
    let _lost = scene.ask(&broker, &first).await;
    assert!(was_killed(&mut broker));
    scene.holds(&first, &second).await;
}
