//! A registry on loopback that answers as told, lies included. Plain HTTP or TLS with its own CA.

use std::collections::HashMap;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::thread;

use sealed_spec::{RegistrySource, Secret};

/// What a path answers.
#[derive(Clone)]
pub(crate) enum Answer {
    /// The body, with a true Content-Length.
    Body(Vec<u8>),
    /// Declares the whole body, sends this much of it, hangs up.
    Cut(Vec<u8>, usize),
    /// The body, whose last byte waits for `release`.
    Withheld(Vec<u8>),
    /// Honours a Range header; sends at most this much of what was asked for, then hangs up.
    Ranged(Vec<u8>, usize),
    /// Answers a range request with another range.
    WrongRange(Vec<u8>),
    /// Bytes without end, in chunks.
    Endless,
    /// A status with headers.
    Status(u16, Vec<(String, String)>),
}

/// What was asked.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    pub(crate) path: String,
    pub(crate) authorization: Option<String>,
    pub(crate) range: Option<String>,
}

#[derive(Default)]
struct State {
    /// The answers of a path in turn; the last one stays.
    answers: HashMap<String, Vec<Arc<Answer>>>,
    log: Vec<Request>,
    /// Requests for paths that contain this wait.
    held: Option<String>,
    /// Whether last bytes may go.
    released: bool,
}

type Shared = Arc<(Mutex<State>, Condvar)>;

pub(crate) struct Registry {
    state: Shared,
    pub(crate) address: String,
    /// PEM of the CA, if it speaks TLS.
    pub(crate) ca: Option<String>,
    closing: Arc<AtomicUsize>,
}

impl Registry {
    pub(crate) fn start() -> Self {
        Self::listen(None)
    }

    pub(crate) fn start_tls() -> Self {
        let ca_key = rcgen::KeyPair::generate().unwrap();
        let mut ca = rcgen::CertificateParams::new(Vec::new()).unwrap();
        ca.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let ca_pem = ca.self_signed(&ca_key).unwrap().pem();
        let issuer = rcgen::Issuer::new(ca, ca_key);
        let key = rcgen::KeyPair::generate().unwrap();
        let leaf = rcgen::CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
        let certificate = leaf.signed_by(&key, &issuer).unwrap();
        let key = rustls::pki_types::PrivateKeyDer::try_from(key.serialize_der()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certificate.der().clone()], key)
            .unwrap();
        let mut registry = Self::listen(Some(Arc::new(config)));
        registry.ca = Some(ca_pem);
        registry
    }

    fn listen(tls: Option<Arc<rustls::ServerConfig>>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let state = Shared::default();
        let closing = Arc::new(AtomicUsize::new(0));
        let (shared, closed) = (state.clone(), closing.clone());
        thread::spawn(move || {
            for stream in listener.incoming() {
                if closed.load(Ordering::SeqCst) == 1 {
                    return;
                }
                let (stream, shared, tls) = (stream.unwrap(), shared.clone(), tls.clone());
                // A client that hangs up in the middle is part of the tests.
                thread::spawn(move || drop(connection(stream, tls, &shared)));
            }
        });
        Self { state, address, ca: None, closing }
    }

    /// What a sealed spec says about this registry.
    pub(crate) fn source(&self) -> RegistrySource {
        let scheme = if self.ca.is_some() { "https" } else { "http" };
        RegistrySource {
            ca: self.ca.clone(),
            ..RegistrySource::new("registry.test", format!("{scheme}://{}", self.address))
        }
    }

    pub(crate) fn source_with_login(&self) -> RegistrySource {
        RegistrySource { username: Some("me".into()), password: Some(Secret::new("sesame")), ..self.source() }
    }

    /// The answers of a path in turn; the last one stays.
    pub(crate) fn answer(&self, path: &str, answers: &[Answer]) {
        self.state
            .0
            .lock()
            .unwrap()
            .answers
            .insert(path.into(), answers.iter().cloned().map(Arc::new).collect());
    }

    pub(crate) fn requests(&self) -> Vec<Request> {
        self.state.0.lock().unwrap().log.clone()
    }

    pub(crate) fn count(&self, part: &str) -> usize {
        self.requests().iter().filter(|request| request.path.contains(part)).count()
    }

    /// Lets requests for paths with `part` in them wait until `release`.
    pub(crate) fn hold(&self, part: &str) {
        self.state.0.lock().unwrap().held = Some(part.into());
    }

    /// Lets go on whatever waits.
    pub(crate) fn release(&self) {
        let mut state = self.state.0.lock().unwrap();
        (state.held, state.released) = (None, true);
        drop(state);
        self.state.1.notify_all();
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        self.closing.store(1, Ordering::SeqCst);
        self.release();
        // Wakes the listener up so that it sees the flag.
        drop(TcpStream::connect(&self.address));
    }
}

fn connection(stream: TcpStream, tls: Option<Arc<rustls::ServerConfig>>, shared: &Shared) -> io::Result<()> {
    match tls {
        None => serve(stream, shared),
        Some(config) => {
            let session = rustls::ServerConnection::new(config).map_err(io::Error::other)?;
            serve(rustls::StreamOwned::new(session, stream), shared)
        }
    }
}

fn serve(stream: impl Read + Write, shared: &Shared) -> io::Result<()> {
    let mut reader = BufReader::new(stream);
    let mut line = String::new();
    reader.read_line(&mut line)?;
    let path = line.split(' ').nth(1).unwrap_or_default().to_owned();
    let (mut authorization, mut range) = (None, None);
    loop {
        let mut header = String::new();
        reader.read_line(&mut header)?;
        if header.trim().is_empty() {
            break;
        }
        if let Some((name, value)) = header.split_once(':')
            && name.eq_ignore_ascii_case("authorization")
        {
            authorization = Some(value.trim().to_owned());
        }
        if let Some((name, value)) = header.split_once(':')
            && name.eq_ignore_ascii_case("range")
        {
            range = Some(value.trim().to_owned());
        }
    }
    let mut stream = reader.into_inner();
    let from =
        range.as_deref().and_then(|r| r.strip_prefix("bytes=")?.strip_suffix('-')?.parse::<usize>().ok());
    match &*next_answer(Request { path, authorization, range }, shared) {
        Answer::Body(body) => {
            write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len())?;
            stream.write_all(body)?;
        }
        Answer::Cut(body, length) => {
            write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len())?;
            stream.write_all(&body[..*length])?;
        }
        Answer::Withheld(body) => {
            let (last, first) = body.split_last().unwrap();
            write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len())?;
            stream.write_all(first)?;
            stream.flush()?;
            drop(shared.1.wait_while(shared.0.lock().unwrap(), |state| !state.released).unwrap());
            stream.write_all(&[*last])?;
        }
        Answer::Ranged(body, length) => {
            let from = from.unwrap_or(0);
            let rest = &body[from..];
            let status = if from == 0 { "200 OK" } else { "206 Partial Content" };
            let range = format!("bytes {from}-{}/{}", body.len() - 1, body.len());
            write!(
                stream,
                "HTTP/1.1 {status}\r\nContent-Length: {}\r\nContent-Range: {range}\r\n\r\n",
                rest.len()
            )?;
            stream.write_all(&rest[..rest.len().min(*length)])?;
        }
        Answer::WrongRange(body) => {
            write!(
                stream,
                "HTTP/1.1 206 Partial Content\r\nContent-Length: {}\r\nContent-Range: bytes 0-\r\n\r\n",
                body.len()
            )?;
            stream.write_all(body)?;
        }
        Answer::Endless => {
            write!(stream, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")?;
            loop {
                write!(stream, "1000\r\n")?;
                stream.write_all(&[b' '; 0x1000])?;
                write!(stream, "\r\n")?;
            }
        }
        Answer::Status(status, headers) => {
            write!(stream, "HTTP/1.1 {status} Told\r\nContent-Length: 0\r\n")?;
            for (name, value) in headers {
                write!(stream, "{name}: {value}\r\n")?;
            }
            write!(stream, "\r\n")?;
        }
    }
    stream.flush()
}

fn next_answer(request: Request, shared: &Shared) -> Arc<Answer> {
    let mut state = shared.0.lock().unwrap();
    let path = request.path.clone();
    state.log.push(request);
    while state.held.as_deref().is_some_and(|part| path.contains(part)) {
        state = shared.1.wait(state).unwrap();
    }
    let key = path.split('?').next().unwrap_or_default();
    match state.answers.get_mut(key) {
        None => Arc::new(Answer::Status(404, Vec::new())),
        Some(answers) if answers.len() > 1 => answers.remove(0),
        Some(answers) => answers[0].clone(),
    }
}
