//! A stand-in for AMD's service on loopback: what it answers to each path, and how badly.

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use collateral::Key;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::sync::watch;

/// One answer.
#[derive(Clone)]
pub(crate) enum Reply {
    Good(Vec<u8>),
    /// A status, and headers each ending in CR LF.
    Status(u16, &'static str),
    /// None until the gate opens, then this.
    Gated(watch::Receiver<bool>, Vec<u8>),
    /// More bytes than anyone wants, without end.
    Endless,
    /// Half of what its header announces.
    Truncated(Vec<u8>),
    /// No HTTP at all.
    Garbage,
}

/// The service.
#[derive(Clone)]
pub(crate) struct StandIn {
    address: SocketAddr,
    state: Arc<Mutex<State>>,
    asked: watch::Sender<usize>,
}

#[derive(Default)]
struct State {
    /// The last reply of a path is repeated.
    replies: HashMap<String, Vec<Reply>>,
    asked: HashMap<String, usize>,
}

impl StandIn {
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let service = Self {
            address: listener.local_addr().unwrap(),
            state: Arc::default(),
            asked: watch::Sender::new(0),
        };
        let serving = service.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let service = serving.clone();
                // How a client leaves is its affair.
                tokio::spawn(async move { drop(service.serve(stream).await) });
            }
        });
        service
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    pub(crate) fn answers(&self, key: &Key, replies: impl Into<Vec<Reply>>) {
        self.state.lock().unwrap().replies.insert(key.kds_path().unwrap(), replies.into());
    }

    pub(crate) fn has(&self, key: &Key, bytes: Vec<u8>) {
        self.answers(key, [Reply::Good(bytes)]);
    }

    /// How often it was asked for that.
    pub(crate) fn asked(&self, key: &Key) -> usize {
        self.state.lock().unwrap().asked.get(&key.kds_path().unwrap()).copied().unwrap_or(0)
    }

    /// Waits until it was asked for that so often.
    pub(crate) async fn was_asked(&self, key: &Key, times: usize) {
        self.asked.subscribe().wait_for(|_| self.asked(key) >= times).await.unwrap();
    }

    pub(crate) async fn serve(&self, mut stream: impl AsyncRead + AsyncWrite + Unpin) -> io::Result<()> {
        let mut request = Vec::new();
        while !request.ends_with(b"\r\n\r\n") {
            request.push(stream.read_u8().await?);
        }
        let request = String::from_utf8(request).unwrap();
        let path = request.strip_prefix("GET ").unwrap().split(' ').next().unwrap().to_owned();
        let reply = {
            let mut state = self.state.lock().unwrap();
            *state.asked.entry(path.clone()).or_default() += 1;
            match state.replies.get_mut(&path) {
                None => Reply::Status(404, ""),
                Some(replies) if replies.len() > 1 => replies.remove(0),
                Some(replies) => replies[0].clone(),
            }
        };
        self.asked.send_modify(|asked| *asked += 1);
        let head =
            |length: usize| format!("HTTP/1.1 200 OK\r\ncontent-length: {length}\r\n\r\n").into_bytes();
        match reply {
            Reply::Good(body) => stream.write_all(&[head(body.len()), body].concat()).await?,
            Reply::Status(status, headers) => {
                let text = format!("HTTP/1.1 {status} x\r\ncontent-length: 0\r\n{headers}\r\n");
                stream.write_all(text.as_bytes()).await?;
            }
            Reply::Gated(mut gate, body) => {
                let _ = gate.wait_for(|open| *open).await;
                stream.write_all(&[head(body.len()), body].concat()).await?;
            }
            Reply::Endless => {
                stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await?;
                loop {
                    stream.write_all(&[0; 4096]).await?;
                }
            }
            Reply::Truncated(body) => stream.write_all(&[head(body.len() * 2), body].concat()).await?,
            Reply::Garbage => stream.write_all(b"\x16\x03\x01 no\r\n\r\n").await?,
        }
        stream.shutdown().await
    }
}
