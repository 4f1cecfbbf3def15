//! Basic auth (RFC 7617): users whose passwords are kept as bcrypt hashes.
//!
//! bcrypt is slow on purpose, and a scraper sends its password with every scrape. So what was verified once is
//! remembered, and only what was not is checked the slow way.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bcrypt::HashParts;
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;

/// The least work that bcrypt knows.
const MIN_COST: u32 = 4;

/// The most work that a hash may ask for: about a second of processor time per attempt. Every step above doubles what
/// wrong passwords can make this process spend.
const MAX_COST: u32 = 14;

/// Who may read what basic auth guards. Empty: no password is asked for.
#[derive(Clone, Default)]
pub struct BasicUsers(Arc<Users>);

#[derive(Default)]
struct Users {
    by_name: BTreeMap<Box<[u8]>, User>,
    /// The highest cost among the users: what every refusal costs.
    cost: u32,
    key: [u8; 32],
}

/// Of this process alone, so that what is remembered is of no use elsewhere.
static KEY: OnceLock<[u8; 32]> = OnceLock::new();

struct User {
    hash: Box<str>,
    cost: u32,
    /// The one password that was right, hashed with the key. There is one per user, so memory does not grow with attempts.
    remembered: Mutex<Option<[u8; 32]>>,
}

/// A name and a password as a client sent them. They cannot be printed.
pub struct BasicCredentials {
    decoded: Vec<u8>,
    colon: usize,
}

/// Why users cannot be used. A hash is not repeated.
#[derive(Debug, thiserror::Error)]
pub enum BasicUsersError {
    /// Not by bcrypt.
    #[error("{0}: expected a bcrypt hash, which begins with $2a$, $2b$ or $2y$; 'htpasswd -nBC 10 \"\"' prints one")]
    Hash(String),
    /// Too cheap to be safe, or too expensive to be checked.
    #[error(
        "{user}: expected a bcrypt hash of cost {MIN_COST} to {MAX_COST}, not {cost}: anybody can have it computed by sending wrong passwords, and each step doubles the time that takes"
    )]
    Cost {
        /// Whose.
        user: String,
        /// The hash's.
        cost: u32,
    },
    /// It cannot be sent.
    #[error("{0}: expected a name without a colon, which would end it")]
    Name(String),
    /// The system has none.
    #[error("the system gives no random bytes ({0})")]
    Random(getrandom::Error),
}

impl BasicUsers {
    /// Users by name, with their bcrypt hashes.
    ///
    /// # Errors
    /// The user whose name cannot be sent, or whose hash is none; the hash is not repeated.
    pub fn new(users: impl IntoIterator<Item = (String, String)>) -> Result<Self, BasicUsersError> {
        let mut by_name = BTreeMap::new();
        let mut highest = 0;
        for (name, hash) in users {
            let cost = cost_of(&name, &hash)?;
            if name.contains(':') {
                return Err(BasicUsersError::Name(display_name(&name)));
            }
            highest = highest.max(cost);
            by_name.insert(name.into_bytes().into(), User { hash: hash.into(), cost, remembered: Mutex::default() });
        }
        let mut random = [0; 32];
        getrandom::fill(&mut random).map_err(BasicUsersError::Random)?;
        Ok(Self(Arc::new(Users { by_name, cost: highest, key: *KEY.get_or_init(|| random) })))
    }

    /// Whether there are no users, and so no password is asked for.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.by_name.is_empty()
    }

    /// Whether exactly these credentials were verified before. Takes no time worth mentioning.
    #[must_use]
    pub fn recall(&self, credentials: &BasicCredentials) -> bool {
        let Some(user) = self.0.by_name.get(credentials.name()) else { return false };
        let remembered = *user.remembered.lock().unwrap_or_else(PoisonError::into_inner);
        remembered.is_some_and(|remembered| remembered.ct_eq(&self.digest(credentials)).into())
    }

    /// Takes over which passwords were right, of users who have the same hash as before.
    pub(super) fn inherit(&self, before: &Self) {
        for (name, user) in &self.0.by_name {
            if let Some(known) = before.0.by_name.get(name).filter(|known| known.hash == user.hash) {
                let remembered = *known.remembered.lock().unwrap_or_else(PoisonError::into_inner);
                *user.remembered.lock().unwrap_or_else(PoisonError::into_inner) = remembered;
            }
        }
    }

    /// Whether these are the name and password of a user. Remembers them if so.
    ///
    /// It blocks for up to a second or so. Every refusal takes the same work, that of the highest cost among the users,
    /// so that its time does not tell which users there are.
    ///
    /// bcrypt reads the first 72 bytes of a password only. A longer one is checked by those, as Go does for other
    /// exporters.
    #[must_use]
    pub fn verify(&self, credentials: &BasicCredentials) -> bool {
        let Some(user) = self.0.by_name.get(credentials.name()) else {
            work(credentials.password(), self.0.cost);
            return false;
        };
        if is_password(credentials.password(), user) {
            let digest = self.digest(credentials);
            *user.remembered.lock().unwrap_or_else(PoisonError::into_inner) = Some(digest);
            return true;
        }
        // 2^c + 2^c + 2^(c+1) + … + 2^(n-1) is 2^n.
        for cost in user.cost..self.0.cost {
            work(credentials.password(), cost);
        }
        false
    }

    /// The name cannot hold a colon, so no two credentials are hashed as the same bytes.
    fn digest(&self, credentials: &BasicCredentials) -> [u8; 32] {
        Sha256::new().chain_update(self.0.key).chain_update(&credentials.decoded).finalize().into()
    }
}

impl fmt::Debug for BasicUsers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "BasicUsers({} [redacted])", self.0.by_name.len())
    }
}

impl BasicCredentials {
    fn name(&self) -> &[u8] {
        self.decoded.get(..self.colon).unwrap_or_default()
    }

    fn password(&self) -> &[u8] {
        self.decoded.get(self.colon + 1..).unwrap_or_default()
    }
}

impl fmt::Debug for BasicCredentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Credentials([redacted])")
    }
}

/// The credentials of the `Basic` scheme, whose name has no case (RFC 9110), in the value of an `Authorization` header.
#[must_use]
pub fn credentials(authorization: &[u8]) -> Option<BasicCredentials> {
    let (scheme, encoded) = authorization.split_at_checked("Basic ".len())?;
    if !scheme.eq_ignore_ascii_case(b"Basic ") {
        return None;
    }
    let decoded = STANDARD.decode(encoded.trim_ascii()).ok()?;
    let colon = decoded.iter().position(|&byte| byte == b':')?;
    Some(BasicCredentials { decoded, colon })
}

/// How a user is named in an error: not at all where name and hash may have been mixed up.
fn display_name(name: &str) -> String {
    if name.starts_with('$') { "a user".to_owned() } else { format!("user {name:?}") }
}

fn cost_of(name: &str, hash: &str) -> Result<u32, BasicUsersError> {
    let parts: HashParts = hash.parse().map_err(|_| BasicUsersError::Hash(display_name(name)))?;
    let cost = parts.get_cost();
    if (MIN_COST..=MAX_COST).contains(&cost) {
        return Ok(cost);
    }
    Err(BasicUsersError::Cost { user: display_name(name), cost })
}

fn is_password(password: &[u8], user: &User) -> bool {
    #[cfg(test)]
    tests::count(user.cost);
    bcrypt::verify(password, &user.hash).unwrap_or(false)
}

/// As much work as checking a password against a hash of this cost.
fn work(password: &[u8], cost: u32) {
    #[cfg(test)]
    tests::count(cost);
    let _ = std::hint::black_box(bcrypt::hash_with_salt(password, cost, [0; 16]));
}

#[cfg(test)]
mod tests;
