//! Proxies: what they are told, what they may refuse, and what they never see.

use std::io::{self, BufReader, Read as _, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;

use oci_registry::{Access, Proxies, Proxy, RegistryError, Settings, Source};

use crate::server::{Seen, Server, ok, reply, request};
use crate::{limits, open, run, with_login};

/// A proxy that connects wherever it is asked to.
pub(crate) struct Tunnel {
    pub(crate) address: String,
    seen: Arc<Mutex<Vec<Seen>>>,
}

impl Tunnel {
    /// Breaks the first connections after so many bytes from the client, in turn.
    pub(crate) fn start(breaks: Vec<u64>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let seen: Arc<Mutex<Vec<Seen>>> = Arc::default();
        let (log, mut breaks) = (seen.clone(), breaks.into_iter());
        thread::spawn(move || {
            for stream in listener.incoming() {
                let (log, most) = (log.clone(), breaks.next().unwrap_or(u64::MAX));
                thread::spawn(move || tunnel(stream?, &log, most));
            }
        });
        Self { address, seen }
    }

    pub(crate) fn requests(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().clone()
    }
}

fn tunnel(stream: TcpStream, log: &Mutex<Vec<Seen>>, most: u64) -> io::Result<()> {
    let mut reader = BufReader::new(stream.try_clone()?);
    let Some(seen) = request(&mut reader)? else { return Ok(()) };
    let (target, mut near) = (seen.target.clone(), stream);
    log.lock().unwrap().push(seen);
    let far = TcpStream::connect(target)?;
    write!(near, "HTTP/1.1 200 Connection established\r\n\r\n")?;
    let (mut back, mut answers) = (near.try_clone()?, far.try_clone()?);
    thread::spawn(move || {
        let copied = io::copy(&mut answers, &mut back);
        drop(back.shutdown(Shutdown::Both));
        copied
    });
    let mut up = far;
    io::copy(&mut reader.take(most), &mut up)?;
    near.shutdown(Shutdown::Both)?;
    up.shutdown(Shutdown::Both)
}

fn through(source: Source, proxy: &str) -> Settings {
    let proxy = Some(Proxy::parse(proxy).unwrap());
    Settings { sources: vec![Source { proxy, ..source }], limits: limits(), ..Settings::default() }
}

#[test]
fn tls_goes_through_a_tunnel() {
    run(async {
        let server = Server::tls(|seen| match seen.header("authorization") {
            Some(_) => ok("{}"),
            None => reply(401).with("WWW-Authenticate", "Basic realm=\"x\""),
        });
        let tunnel = Tunnel::start(Vec::new());
        let proxy = format!("http://px:secret@{}", tunnel.address);
        let repository = open(through(with_login(&server), &proxy), Access::Pull);
        repository.tagged("v1").await.unwrap();
        repository.tagged("v1").await.unwrap();
        // One tunnel for all of it; the two logins don't meet.
        let asked = tunnel.requests();
        assert_eq!(asked.len(), 1);
        assert_eq!(asked[0].line(), format!("CONNECT {}", server.address));
        assert_eq!(asked[0].header("proxy-authorization"), Some("Basic cHg6c2VjcmV0"));
        assert_eq!(asked[0].header("authorization"), None);
        assert!(server.requests().iter().all(|seen| seen.header("proxy-authorization").is_none()));
    });
}

#[test]
fn plain_http_is_asked_of_the_proxy_by_name() {
    run(async {
        let proxy = Server::plain(|_| ok("{}"));
        // A name that nobody can look up: the proxy does.
        let source = Source::new("registry.test", "http://registry.invalid:5000");
        let settings = through(source, &format!("http://px:secret@{}", proxy.address));
        open(settings, Access::Pull).tagged("v1").await.unwrap();
        let asked = &proxy.requests()[0];
        assert_eq!(asked.line(), "GET http://registry.invalid:5000/v2/team/app/manifests/v1");
        assert_eq!(asked.header("host"), Some("registry.invalid:5000"));
        assert_eq!(asked.header("proxy-authorization"), Some("Basic cHg6c2VjcmV0"));
    });
}

#[test]
fn a_proxy_that_refuses_is_named() {
    run(async {
        let server = Server::tls(|_| ok("{}"));
        for (status, want) in [(403, "with status 403"), (407, "wants a login"), (503, "with status 503")] {
            let proxy = Server::plain(move |_| reply(status));
            let settings = through(with_login(&server), &format!("http://px:secret@{}", proxy.address));
            let error = open(settings, Access::Pull).tagged("v1").await.unwrap_err();
            assert!(matches!(error, RegistryError::Unreachable { .. }), "{error}");
            let text = error.to_string();
            assert!(text.contains(&format!("proxy {}: ", proxy.address)) && text.contains(want), "{text}");
            assert!(!text.contains("secret") && !text.contains("sesame"), "{text}");
        }
        let settings = through(server.source(), "http://127.0.0.1:1");
        let error = open(settings, Access::Pull).tagged("v1").await.unwrap_err();
        assert!(error.to_string().contains("proxy 127.0.0.1:1: no connection"), "{error}");
        assert!(server.requests().is_empty());
    });
}

#[test]
fn a_proxy_cannot_stand_in_for_the_registry() {
    run(async {
        // It takes the tunnel for itself: its certificate is nobody's that is trusted.
        let (server, imposter) = (Server::tls(|_| ok("{}")), Server::tls(|_| ok("{}")));
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let target = imposter.address.clone();
        thread::spawn(move || {
            for stream in listener.incoming() {
                let (mut near, mut far) = (stream.unwrap(), TcpStream::connect(&target).unwrap());
                request(&mut BufReader::new(near.try_clone().unwrap())).unwrap();
                write!(near, "HTTP/1.1 200 OK\r\n\r\n").unwrap();
                let (mut back, mut answers) = (near.try_clone().unwrap(), far.try_clone().unwrap());
                thread::spawn(move || io::copy(&mut answers, &mut back));
                thread::spawn(move || io::copy(&mut near, &mut far));
            }
        });
        let settings = through(with_login(&server), &format!("http://{address}"));
        let error = open(settings, Access::Pull).tagged("v1").await.unwrap_err();
        assert!(error.to_string().contains("TLS handshake"), "{error}");
        assert!(imposter.requests().is_empty());
    });
}

#[test]
fn the_general_proxy_is_for_what_has_none_of_its_own() {
    run(async {
        let server = Server::tls(|_| ok("{}"));
        let (general, own) = (Tunnel::start(Vec::new()), Tunnel::start(Vec::new()));
        let parse = |tunnel: &Tunnel| Proxy::parse(&format!("http://{}", tunnel.address)).unwrap();
        let settings = |except: &[&str], proxy| Settings {
            sources: vec![Source { proxy, ..server.source() }],
            proxies: Proxies::new(parse(&general), except.iter().copied()),
            limits: limits(),
            ..Settings::default()
        };
        open(settings(&[], None), Access::Pull).tagged("v1").await.unwrap();
        assert_eq!((general.requests().len(), own.requests().len()), (1, 0));
        open(settings(&[], Some(parse(&own))), Access::Pull).tagged("v1").await.unwrap();
        assert_eq!((general.requests().len(), own.requests().len()), (1, 1));
        open(settings(&["127.0.0.0/8"], None), Access::Pull).tagged("v1").await.unwrap();
        assert_eq!((general.requests().len(), own.requests().len()), (1, 1));
    });
}
