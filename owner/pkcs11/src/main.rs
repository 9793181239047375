//! A PKCS #11 token's key for `sealpod`: a program of its own, because a static binary can't load the vendor's
//! library and because that library needs no other key. One request on standard input, one answer on standard
//! output, both JSON (`encrypted_image::pkcs11::token`); nothing in arguments.

mod module;
mod pin;
mod token;

use std::io::{Read, Write};

use anyhow::{Context, Result, ensure};
use encrypted_image::pkcs11::token::{Answer, MESSAGE_LIMIT, Operation, Refusal, Request, Secret, VERSION};
use encrypted_image::pkcs11::uri::Uri;
use zeroize::Zeroizing;

fn main() -> Result<()> {
    ensure!(std::env::args_os().len() == 1, "sealpod runs this program; it takes no arguments");
    // The buffers never move, so that nothing secret is left behind.
    let mut question = Zeroizing::new(Vec::with_capacity(MESSAGE_LIMIT + 1));
    std::io::stdin()
        .lock()
        .take(MESSAGE_LIMIT as u64 + 1)
        .read_to_end(&mut question)
        .context("reading the request")?;
    let answer = match work(&question) {
        Ok(done) => Answer::Done(done),
        Err(refusal) => Answer::Refused(refusal),
    };
    let mut reply = Zeroizing::new(Vec::with_capacity(MESSAGE_LIMIT));
    serde_json::to_writer(&mut *reply, &answer).context("writing the answer")?;
    std::io::stdout().lock().write_all(&reply).context("writing the answer")
}

fn work(question: &[u8]) -> Result<Secret, Refusal> {
    if cfg!(target_feature = "crt-static") {
        return Err(Refusal::Static);
    }
    if question.len() > MESSAGE_LIMIT {
        return Err(Refusal::Request);
    }
    let request: Request = serde_json::from_slice(question).map_err(|_| Refusal::Request)?;
    if request.version != VERSION {
        return Err(Refusal::Request);
    }
    let text = std::str::from_utf8(&request.uri.0).map_err(|_| Refusal::Request)?;
    let uri = Uri::parse(text).map_err(|error| Refusal::Uri(error.to_string()))?;
    let module = module::find(&uri, &request.modules)?;
    let context = token::Context::load(&module, &uri)?;
    match request.operation {
        Operation::Encrypt { hash, plain } => {
            let pin = pin::of(&uri)?;
            context.open(&uri, pin, token::Half::Public)?.encrypt(hash, &plain.0).map(Secret)
        }
        Operation::Decrypt { recipients } => {
            let pin = pin::of(&uri)?;
            context.open(&uri, pin, token::Half::Private)?.decrypt(&recipients).map(Secret)
        }
    }
}
