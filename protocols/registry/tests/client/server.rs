//! An HTTP server on loopback that answers by a function, lies included. Plain or TLS with a CA of its own.

use std::collections::HashMap;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;

use oci_registry::Source;

/// A request as it came.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    pub(crate) method: String,
    pub(crate) target: String,
    pub(crate) headers: HashMap<String, String>,
    pub(crate) body: Vec<u8>,
}

impl Seen {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(String::as_str)
    }

    pub(crate) fn path(&self) -> &str {
        self.target.split('?').next().unwrap_or_default()
    }

    /// `GET /path`
    pub(crate) fn line(&self) -> String {
        format!("{} {}", self.method, self.target)
    }
}

/// What is answered.
pub(crate) struct Reply {
    status: u16,
    headers: Vec<(String, String)>,
    body: Body,
}

enum Body {
    Whole(Vec<u8>),
    /// Declared longer than it is; then the connection ends.
    Cut(usize, Vec<u8>),
    /// Declared longer than it is; then nothing, until the client hangs up.
    Stall(usize, Vec<u8>),
    Endless,
    /// Not even a head, until the client hangs up.
    Silence,
    /// The connection ends without an answer.
    HangUp,
}

pub(crate) fn reply(status: u16) -> Reply {
    Reply { status, headers: Vec::new(), body: Body::Whole(Vec::new()) }
}

pub(crate) fn ok(body: impl Into<Vec<u8>>) -> Reply {
    Reply { body: Body::Whole(body.into()), ..reply(200) }
}

impl Reply {
    pub(crate) fn with(mut self, name: &str, value: impl Into<String>) -> Self {
        self.headers.push((name.into(), value.into()));
        self
    }

    pub(crate) fn cut(declared: usize, body: &[u8]) -> Self {
        Self { body: Body::Cut(declared, body.to_vec()), ..reply(200) }
    }

    pub(crate) fn stall(declared: usize, body: &[u8]) -> Self {
        Self { body: Body::Stall(declared, body.to_vec()), ..reply(200) }
    }

    pub(crate) fn endless() -> Self {
        Self { body: Body::Endless, ..reply(200) }
    }

    pub(crate) fn silence() -> Self {
        Self { body: Body::Silence, ..reply(200) }
    }

    pub(crate) fn hang_up() -> Self {
        Self { body: Body::HangUp, ..reply(200) }
    }

    pub(crate) fn status(mut self, status: u16) -> Self {
        self.status = status;
        self
    }
}

type Handler = dyn Fn(&Seen) -> Reply + Send + Sync;

/// The server, until it is dropped.
pub(crate) struct Server {
    pub(crate) address: String,
    pub(crate) ca: Option<String>,
    seen: Arc<Mutex<Vec<Seen>>>,
    connections: Arc<AtomicUsize>,
    closing: Arc<AtomicBool>,
}

impl Server {
    pub(crate) fn plain(handler: impl Fn(&Seen) -> Reply + Send + Sync + 'static) -> Self {
        Self::listen(None, Box::new(handler), usize::MAX)
    }

    pub(crate) fn tls(handler: impl Fn(&Seen) -> Reply + Send + Sync + 'static) -> Self {
        let certified = Certified::new();
        let mut server = Self::listen(Some(certified.server()), Box::new(handler), usize::MAX);
        server.ca = Some(certified.ca);
        server
    }

    /// Hangs up after each answer, without saying so before.
    pub(crate) fn plain_closing(handler: impl Fn(&Seen) -> Reply + Send + Sync + 'static) -> Self {
        Self::listen(None, Box::new(handler), 1)
    }

    fn listen(tls: Option<Arc<rustls::ServerConfig>>, handler: Box<Handler>, answers: usize) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let (seen, connections, closing) = (Arc::default(), Arc::default(), Arc::default());
        let server = Self { address, ca: None, seen, connections, closing };
        let (log, count, closed) = (server.seen.clone(), server.connections.clone(), server.closing.clone());
        let handler: Arc<Handler> = Arc::from(handler);
        thread::spawn(move || {
            for stream in listener.incoming() {
                if closed.load(Ordering::SeqCst) {
                    return;
                }
                count.fetch_add(1, Ordering::SeqCst);
                let (stream, tls) = (stream.unwrap(), tls.clone());
                let (log, handler) = (log.clone(), handler.clone());
                // A client that hangs up in the middle is part of the tests.
                thread::spawn(move || match tls {
                    None => serve(stream, &log, &*handler, answers),
                    Some(config) => {
                        let session = rustls::ServerConnection::new(config).map_err(io::Error::other)?;
                        serve(rustls::StreamOwned::new(session, stream), &log, &*handler, answers)
                    }
                });
            }
        });
        server
    }

    /// How it is reached, as `registry.test`.
    pub(crate) fn source(&self) -> Source {
        Source { ca: self.ca.clone(), ..Source::new("registry.test", &self.url()) }
    }

    pub(crate) fn url(&self) -> String {
        format!("{}://{}", if self.ca.is_some() { "https" } else { "http" }, self.address)
    }

    pub(crate) fn requests(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().clone()
    }

    /// `GET /path` of all requests.
    pub(crate) fn lines(&self) -> Vec<String> {
        self.requests().iter().map(Seen::line).collect()
    }

    pub(crate) fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.closing.store(true, Ordering::SeqCst);
        // Wakes the listener up so that it sees the flag.
        drop(TcpStream::connect(&self.address));
    }
}

fn serve(
    stream: impl Read + Write,
    log: &Mutex<Vec<Seen>>,
    handler: &Handler,
    answers: usize,
) -> io::Result<()> {
    let mut stream = BufReader::new(stream);
    for _ in 0..answers {
        let Some(seen) = request(&mut stream)? else { return Ok(()) };
        log.lock().unwrap().push(seen.clone());
        let Reply { status, headers, body } = handler(&seen);
        let out = stream.get_mut();
        let mut head = format!("HTTP/1.1 {status} Told\r\n");
        for (name, value) in headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        let length = match &body {
            Body::Whole(body) => body.len(),
            Body::Cut(declared, _) | Body::Stall(declared, _) => *declared,
            _ => 0,
        };
        match body {
            Body::Whole(body) => {
                write!(out, "{head}Content-Length: {length}\r\n\r\n")?;
                if seen.method != "HEAD" {
                    out.write_all(&body)?;
                }
                out.flush()?;
            }
            Body::Cut(_, body) => {
                write!(out, "{head}Content-Length: {length}\r\n\r\n")?;
                out.write_all(&body)?;
                return out.flush();
            }
            Body::Stall(_, body) => {
                write!(out, "{head}Content-Length: {length}\r\n\r\n")?;
                out.write_all(&body)?;
                out.flush()?;
                return until_hung_up(&mut stream);
            }
            Body::Endless => {
                write!(out, "{head}Transfer-Encoding: chunked\r\n\r\n")?;
                loop {
                    write!(out, "1000\r\n")?;
                    out.write_all(&[b' '; 0x1000])?;
                    write!(out, "\r\n")?;
                }
            }
            Body::Silence => return until_hung_up(&mut stream),
            Body::HangUp => return Ok(()),
        }
    }
    Ok(())
}

fn until_hung_up(stream: &mut impl Read) -> io::Result<()> {
    while stream.read(&mut [0; 512])? > 0 {}
    Ok(())
}

/// One request; `None` at the end of the connection.
pub(crate) fn request(stream: &mut impl BufRead) -> io::Result<Option<Seen>> {
    let mut line = String::new();
    if stream.read_line(&mut line)? == 0 {
        return Ok(None);
    }
    let mut words = line.split_whitespace().map(str::to_owned);
    let (method, target) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let mut headers = HashMap::new();
    loop {
        let mut header = String::new();
        if stream.read_line(&mut header)? == 0 || header.trim().is_empty() {
            break;
        }
        if let Some((name, value)) = header.split_once(':') {
            headers.insert(name.to_ascii_lowercase(), value.trim().to_owned());
        }
    }
    let length = headers.get("content-length").and_then(|length| length.parse().ok()).unwrap_or(0);
    let mut body = Vec::new();
    stream.take(length).read_to_end(&mut body)?;
    Ok(Some(Seen { method, target, headers, body }))
}

/// A CA, and a key and certificate of 127.0.0.1 that it vouches for.
pub(crate) struct Certified {
    pub(crate) ca: String,
    pub(crate) certificate: String,
    pub(crate) key: String,
}

impl Certified {
    pub(crate) fn new() -> Self {
        let ca_key = rcgen::KeyPair::generate().unwrap();
        let mut ca = rcgen::CertificateParams::new(Vec::new()).unwrap();
        ca.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let ca_pem = ca.self_signed(&ca_key).unwrap().pem();
        let issuer = rcgen::Issuer::new(ca, ca_key);
        let key = rcgen::KeyPair::generate().unwrap();
        let leaf = rcgen::CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
        let certificate = leaf.signed_by(&key, &issuer).unwrap();
        Self { ca: ca_pem, certificate: certificate.pem(), key: key.serialize_pem() }
    }

    fn server(&self) -> Arc<rustls::ServerConfig> {
        use rustls::pki_types::pem::PemObject as _;
        let certificate =
            rustls::pki_types::CertificateDer::from_pem_slice(self.certificate.as_bytes()).unwrap();
        let key = rustls::pki_types::PrivateKeyDer::from_pem_slice(self.key.as_bytes()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certificate], key)
            .unwrap();
        Arc::new(config)
    }
}
