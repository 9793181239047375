//! Challenges (RCAR step 2) that cost the broker nothing until they are answered: `/auth` keeps no state.
//!
//! A session's id holds the time and the kind of evidence; its nonce is a MAC over the id under a key that is
//! made at start. So `/attest` can tell that this broker made both, and only there is anything written down:
//! that the challenge was used. Whatever comes of it, a challenge is answered at most once.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use base64::prelude::{BASE64_STANDARD, Engine};
use ring::hmac;
use subtle::ConstantTimeEq;

use crate::clock;
use crate::sessions::SessionError;

/// Used challenges remembered, 16 bytes each. More than this within a challenge's life, and the oldest end
/// early: nothing of their age is taken any more.
const USED: usize = 65_536;

/// A session's secret name, lower hex in the cookie: 4 bytes of time (big-endian, so that ids sort by age),
/// the kind of evidence, 11 random bytes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SessionId([u8; 16]);

impl SessionId {
    /// Reads the cookie's form: 32 lower-case hex digits.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        if text.len() != 32 || text.bytes().any(|b| b.is_ascii_uppercase()) {
            return None;
        }
        let mut id = [0; 16];
        hex::decode_to_slice(text, &mut id).ok()?;
        Some(Self(id))
    }

    /// The cookie's form.
    #[must_use]
    pub fn reveal(&self) -> String {
        hex::encode(self.0)
    }

    /// Seconds since 1970 at which it was made, as it says itself.
    const fn issued(&self) -> u32 {
        u32::from_be_bytes([self.0[0], self.0[1], self.0[2], self.0[3]])
    }
}

impl fmt::Debug for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SessionId(…)")
    }
}

/// The right to attest once: only [`Challenges::take`] makes one, and appraisal consumes it.
pub struct Challenge {
    id: SessionId,
    nonce: String,
    expires: SystemTime,
}

impl Challenge {
    /// The session's id.
    #[must_use]
    pub fn id(&self) -> SessionId {
        self.id
    }

    /// The kind of evidence that `/auth` was asked for.
    #[must_use]
    pub fn kind(&self) -> u8 {
        self.id.0[4]
    }

    /// When the session ends.
    #[must_use]
    pub fn expires(&self) -> SystemTime {
        self.expires
    }

    /// The nonce's text, for what is bound to it; the right to use it ends here.
    #[must_use]
    pub fn spend(self) -> String {
        self.nonce
    }
}

impl fmt::Debug for Challenge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Challenge(…)")
    }
}

#[derive(Default)]
struct Used {
    ids: BTreeSet<SessionId>,
    /// Youngest time of a challenge whose use was forgotten: none of that age or older is taken. A clock that
    /// is set back makes none of them good again.
    forgotten: u32,
}

/// Makes challenges and takes their answers.
pub struct Challenges {
    key: hmac::Key,
    lifetime: u32,
    most: usize,
    used: Mutex<Used>,
}

impl Challenges {
    /// Challenges that live this long, under a new key.
    ///
    /// # Errors
    /// [`SessionError::Random`].
    pub fn new(lifetime: Duration) -> Result<Self, SessionError> {
        Self::remembering(lifetime, USED)
    }

    fn remembering(lifetime: Duration, most: usize) -> Result<Self, SessionError> {
        let mut key = zeroize::Zeroizing::new([0; 32]);
        getrandom::fill(key.as_mut()).map_err(|_| SessionError::Random)?;
        let key = hmac::Key::new(hmac::HMAC_SHA256, key.as_ref());
        let lifetime = u32::try_from(lifetime.as_secs()).unwrap_or(u32::MAX);
        Ok(Self { key, lifetime, most, used: Mutex::default() })
    }

    /// A new session's id, and its nonce: standard base64 of 32 bytes.
    ///
    /// # Errors
    /// [`SessionError::Random`].
    pub fn issue(&self, kind: u8, now: SystemTime) -> Result<(SessionId, String), SessionError> {
        let mut id = [0; 16];
        id[..4].copy_from_slice(&seconds(now).to_be_bytes());
        id[4] = kind;
        getrandom::fill(&mut id[5..]).map_err(|_| SessionError::Random)?;
        let id = SessionId(id);
        Ok((id, self.nonce(id)))
    }

    /// Takes the challenge of `id` for one attestation, if `claimed` is its nonce.
    ///
    /// # Errors
    /// [`SessionError::Unknown`] if it is too old or from the future, [`SessionError::Nonce`] if the nonce is
    /// not this session's, [`SessionError::Used`] if it was taken before.
    pub fn take(&self, id: SessionId, claimed: &str, now: SystemTime) -> Result<Challenge, SessionError> {
        let (issued, now) = (id.issued(), seconds(now));
        let ends = issued.saturating_add(self.lifetime);
        if issued > now || ends <= now {
            return Err(SessionError::Unknown);
        }
        let nonce = self.nonce(id);
        if !bool::from(nonce.as_bytes().ct_eq(claimed.as_bytes())) {
            return Err(SessionError::Nonce);
        }
        let mut used = self.used.lock().unwrap_or_else(PoisonError::into_inner);
        used.sweep(now.saturating_sub(self.lifetime), self.most);
        if issued <= used.forgotten {
            return Err(SessionError::Unknown);
        }
        if !used.ids.insert(id) {
            return Err(SessionError::Used);
        }
        drop(used);
        Ok(Challenge { id, nonce, expires: SystemTime::UNIX_EPOCH + Duration::from_secs(ends.into()) })
    }

    /// Another name of a session, which its token carries: who sees a token doesn't learn the cookie.
    #[must_use]
    pub fn alias(&self, id: SessionId) -> SessionId {
        let tag = self.mac(b"alias", id);
        let mut alias = [0; 16];
        alias.copy_from_slice(&tag.as_ref()[..16]);
        SessionId(alias)
    }

    fn nonce(&self, id: SessionId) -> String {
        BASE64_STANDARD.encode(self.mac(b"nonce", id))
    }

    fn mac(&self, purpose: &[u8; 5], id: SessionId) -> hmac::Tag {
        let mut message = [0; 21];
        message[..5].copy_from_slice(purpose);
        message[5..].copy_from_slice(&id.0);
        hmac::sign(&self.key, &message)
    }
}

impl Used {
    /// Forgets what ended at or before `dead`, and the oldest if there are too many.
    fn sweep(&mut self, dead: u32, most: usize) {
        while let Some(oldest) = self.ids.first() {
            let issued = oldest.issued();
            if issued > dead && self.ids.len() < most {
                break;
            }
            self.forgotten = self.forgotten.max(issued);
            self.ids.pop_first();
        }
    }
}

fn seconds(time: SystemTime) -> u32 {
    u32::try_from(clock::unix(time)).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIFETIME: Duration = Duration::from_secs(300);

    fn now() -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(1_795_300_140)
    }

    fn challenges() -> Challenges {
        Challenges::new(LIFETIME).unwrap()
    }

    #[test]
    fn a_challenge_is_answered_once() {
        let challenges = challenges();
        let (id, nonce) = challenges.issue(7, now()).unwrap();
        let taken = challenges.take(id, &nonce, now()).unwrap();
        assert_eq!((taken.id(), taken.kind(), taken.expires()), (id, 7, now() + LIFETIME));
        assert_eq!(taken.spend(), nonce);
        assert_eq!(challenges.take(id, &nonce, now()).unwrap_err(), SessionError::Used);
    }

    #[test]
    fn of_many_at_once_one_wins() {
        let challenges = challenges();
        let (id, nonce) = challenges.issue(0, now()).unwrap();
        let won = std::thread::scope(|scope| {
            let all: Vec<_> =
                (0..8).map(|_| scope.spawn(|| challenges.take(id, &nonce, now()).is_ok())).collect();
            all.into_iter().map(|one| one.join().unwrap()).filter(|won| *won).count()
        });
        assert_eq!(won, 1);
    }

    #[test]
    fn another_sessions_nonce_is_refused_and_uses_nothing_up() {
        let challenges = challenges();
        let (_, other) = challenges.issue(0, now()).unwrap();
        let (id, nonce) = challenges.issue(0, now()).unwrap();
        for wrong in [other.as_str(), "", &nonce[1..], &nonce.to_lowercase()] {
            assert_eq!(challenges.take(id, wrong, now()).unwrap_err(), SessionError::Nonce);
        }
        assert!(challenges.take(id, &nonce, now()).is_ok());
    }

    #[test]
    fn another_brokers_challenge_is_refused() {
        let (id, nonce) = challenges().issue(0, now()).unwrap();
        assert_eq!(challenges().take(id, &nonce, now()).unwrap_err(), SessionError::Nonce);
    }

    #[test]
    fn each_changed_byte_of_an_id_is_refused() {
        let challenges = challenges();
        let (id, nonce) = challenges.issue(0, now()).unwrap();
        for at in 0..16 {
            let mut changed = id;
            changed.0[at] ^= 1;
            assert!(challenges.take(changed, &nonce, now()).is_err());
        }
    }

    #[test]
    fn a_challenge_expires_and_does_not_come_from_the_future() {
        let challenges = challenges();
        let (id, nonce) = challenges.issue(0, now()).unwrap();
        for when in [now() + LIFETIME, now() - Duration::from_secs(1)] {
            assert_eq!(challenges.take(id, &nonce, when).unwrap_err(), SessionError::Unknown);
        }
        assert!(challenges.take(id, &nonce, now() + LIFETIME - Duration::from_secs(1)).is_ok());
    }

    #[test]
    fn a_clock_that_is_set_back_makes_no_used_challenge_good() {
        let challenges = challenges();
        let (id, nonce) = challenges.issue(0, now()).unwrap();
        challenges.take(id, &nonce, now()).unwrap();
        let later = now() + 2 * LIFETIME;
        let (other, its_nonce) = challenges.issue(0, later).unwrap();
        challenges.take(other, &its_nonce, later).unwrap();
        assert_eq!(challenges.used.lock().unwrap().ids.len(), 1, "the first is forgotten");
        assert_eq!(challenges.take(id, &nonce, now()).unwrap_err(), SessionError::Unknown);
    }

    #[test]
    fn memory_of_uses_is_bounded_and_forgets_no_replay_open() {
        let challenges = Challenges::remembering(LIFETIME, 4).unwrap();
        let taken: Vec<_> = (0..10)
            .map(|n| {
                let now = now() + Duration::from_secs(n);
                let (id, nonce) = challenges.issue(0, now).unwrap();
                challenges.take(id, &nonce, now).unwrap();
                (id, nonce)
            })
            .collect();
        assert_eq!(challenges.used.lock().unwrap().ids.len(), 4);
        let later = now() + Duration::from_secs(20);
        assert!(taken.iter().all(|(id, nonce)| challenges.take(*id, nonce, later).is_err()));
    }

    #[test]
    fn an_alias_is_neither_the_id_nor_anothers() {
        let challenges = challenges();
        let ((a, _), (b, _)) = (challenges.issue(0, now()).unwrap(), challenges.issue(0, now()).unwrap());
        assert_ne!(challenges.alias(a), a);
        assert_ne!(challenges.alias(a), challenges.alias(b));
        assert_eq!(challenges.alias(a), challenges.alias(a));
    }

    #[test]
    fn ids_are_exact() {
        let (id, _) = challenges().issue(0, now()).unwrap();
        let text = id.reveal();
        assert_eq!(SessionId::parse(&text), Some(id));
        for wrong in [text.to_uppercase() + "A", text[1..].to_owned(), format!("{text}0"), "é".repeat(16)] {
            assert_eq!(SessionId::parse(&wrong), None, "{wrong}");
        }
    }
}
