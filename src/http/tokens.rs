//! The API's tokens: made, stored as digests, recognized in constant time.

use std::fmt;
use std::sync::Mutex;
use std::time::{Duration, SystemTime};

use sha2::{Digest as _, Sha256};
use subtle::{Choice, ConditionallySelectable as _, ConstantTimeEq as _};

use crate::http::rate_limit::{Gcra, RateDecision, RateLimit};
use crate::model::text::hex;
use crate::store::remediation::AUTO;

/// What every secret begins with, so that scanners for leaked secrets can know it.
const PREFIX: &str = "slt_";

/// Random bytes in a secret. With 256 bits, a digest without salt and without stretching is enough: there is nothing to
/// guess.
const SECRET_BYTES: usize = 32;

/// Tokens in a file. Every request is compared with all of them: a microsecond per thirty.
const MAX_TOKENS: usize = 1000;

/// The highest rate of a token, requests per second: more is no limit.
const MAX_RATE: u32 = 1_000_000;

/// Seconds of its rate that a token may use at once: the same as the defaults for all tokens.
const BURST_SECONDS: u32 = 2;

/// The longest name of a token, in bytes.
const MAX_NAME_BYTES: usize = 64;

/// The scope of tokens that may decide on plans.
pub const REMEDIATE: &str = "remediate";

/// The name of the token of the environment.
pub const DEFAULT_NAME: &str = "default";

/// A token that opens the API: everything about it but the secret.
pub struct Token {
    /// Its name, for the log.
    pub name: String,
    digest: [u8; 32],
    expires: Option<SystemTime>,
    /// How often it may be used, where it has a rate of its own.
    pub(super) rate: Option<RateLimit>,
    /// Whether it may decide on plans.
    pub(super) may_remediate: bool,
    used: Mutex<TokenUse>,
}

/// What a token's line has in addition to its name and its digest.
#[derive(Clone, Copy, Debug, Default)]
pub struct Options {
    /// When it ends; never where it is `None`.
    pub expires: Option<SystemTime>,
    /// Requests per second, in place of what holds for all tokens.
    pub rate: Option<u32>,
    /// Whether it may decide on plans, beside reading the API.
    pub may_remediate: bool,
}

/// How much a token was used.
#[derive(Debug, Default)]
struct TokenUse {
    bucket: Gcra,
    last: Option<SystemTime>,
}

/// Which token it was, to check later whether it is still there. It tells nothing of the secret.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct TokenIdentity([u8; 32]);

impl fmt::Debug for TokenIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TokenIdentity")
    }
}

/// All tokens that there are.
#[derive(Debug, Default)]
pub struct Tokens(Vec<Token>);

/// The answer to a client that presents a token.
#[derive(Debug)]
pub enum TokenCheck<'a> {
    /// It opens.
    Valid(&'a Token),
    /// It did once.
    Expired(&'a Token),
    /// There is no such token.
    Unknown,
}

impl Token {
    /// The token of a secret, where the secret can be sent as one: visible ASCII and not empty.
    #[must_use]
    pub fn new(name: &str, secret: &str) -> Option<Self> {
        let sendable = !secret.is_empty() && secret.bytes().all(|byte| byte.is_ascii_graphic());
        sendable.then(|| Self::stored(name, digest(secret.as_bytes()), Options::default()))
    }

    fn stored(name: &str, digest: [u8; 32], options: Options) -> Self {
        let Options { expires, rate, may_remediate } = options;
        let (name, rate) = (name.to_owned(), rate.map(per_second));
        Self { name, digest, expires, rate, may_remediate, used: Mutex::default() }
    }

    /// Which one it is.
    pub(super) fn identity(&self) -> TokenIdentity {
        TokenIdentity(self.digest)
    }

    /// Whether it opens only for a time.
    pub(super) fn expires(&self) -> bool {
        self.expires.is_some()
    }

    /// Takes a request out of what this token has left.
    pub(super) fn take(&self, rate: RateLimit, now: Duration) -> RateDecision {
        self.used().bucket.take(rate, now)
    }

    /// When it was last used before `now`, which is noted.
    pub(super) fn used_at(&self, now: SystemTime) -> Option<SystemTime> {
        self.used().last.replace(now)
    }

    fn used(&self) -> std::sync::MutexGuard<'_, TokenUse> {
        self.used.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Token({})", self.name)
    }
}

/// Why a token cannot be used. What is in a file is not repeated: it may be a secret in the wrong place.
#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    /// A line of the file.
    #[error("line {0}: {1}")]
    Line(usize, Box<TokenError>),
    /// The last line may be cut short: after its digest, it would be that of a token that does not expire.
    #[error("expected a line end after the last line: without one, the file may be cut short")]
    CutShort,
    /// No line of a token.
    #[error(
        "expected NAME sha256:DIGEST [expires:TIME] [rate:N/s] [scope:remediate], as 'streamlag token NAME' prints it"
    )]
    Form,
    /// No digest.
    #[error("expected 64 hexadecimal digits after sha256:")]
    Digest,
    /// No time.
    #[error("expected a time such as 2027-01-31T12:00:00Z or 2027-01-31 after expires:")]
    Expiry,
    /// No rate.
    #[error("expected a rate from 1/s to {MAX_RATE}/s, such as 20/s")]
    Rate,
    /// No name that can stand in the file and in a log line.
    #[error("token name: expected 1 to {MAX_NAME_BYTES} letters, digits, dots, dashes, underscores and at-signs")]
    Name,
    /// The name that stands for nobody.
    #[error("token name: expected another name than {AUTO}, which stands for acts that nobody approved")]
    Reserved,
    /// A name is there twice.
    #[error("there is another token named {0:?}")]
    SameName(String),
    /// A secret is there twice.
    #[error("the tokens {0:?} and {1:?} have the same secret")]
    SameSecret(String, String),
    /// More than the limit.
    #[error("there are more than {MAX_TOKENS} tokens")]
    TooMany,
    /// The system has no randomness.
    #[error("the system gives no random bytes: {0}")]
    Random(getrandom::Error),
}

impl Tokens {
    /// Tokens out of a file's text: a line each, as [`NewToken::line`] is; empty lines and lines that begin with `#` say
    /// nothing. The last line ends with a line end as well.
    ///
    /// # Errors
    /// The first line that is wrong: its number and what is expected. What is in it is not repeated, for it may be a secret
    /// in the wrong place.
    pub fn parse(text: &str) -> Result<Self, TokenError> {
        let mut tokens = Self::default();
        for (number, line) in (1..).zip(text.lines()) {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let added = parse_line(line).and_then(|token| tokens.add(token));
            added.map_err(|why| TokenError::Line(number, Box::new(why)))?;
        }
        if !text.is_empty() && !text.ends_with('\n') {
            return Err(TokenError::CutShort);
        }
        Ok(tokens)
    }

    /// Adds a token.
    ///
    /// # Errors
    /// Where its name or its secret is there already, or there are too many.
    pub fn add(&mut self, token: Token) -> Result<(), TokenError> {
        if self.0.iter().any(|known| known.name == token.name) {
            return Err(TokenError::SameName(token.name.to_string()));
        }
        if let Some(known) = self.0.iter().find(|known| known.digest == token.digest) {
            return Err(TokenError::SameSecret(known.name.to_string(), token.name.to_string()));
        }
        if self.0.len() >= MAX_TOKENS {
            return Err(TokenError::TooMany);
        }
        self.0.push(token);
        Ok(())
    }

    /// Takes over how much tokens were used that were there before.
    pub(super) fn inherit(&self, before: &Self) {
        for token in &self.0 {
            if let Some(known) = before.0.iter().find(|known| known.digest == token.digest) {
                *token.used() = std::mem::take(&mut *known.used());
            }
        }
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The token with this secret. It is compared with all of them, and each in constant time, so that the time tells
    /// neither which there are nor how near a guess was.
    #[must_use]
    pub fn find(&self, secret: &[u8], now: SystemTime) -> TokenCheck<'_> {
        let presented = digest(secret);
        let mut at = u64::MAX;
        for (place, token) in (0..).zip(&self.0) {
            let same: Choice = token.digest.ct_eq(&presented);
            at.conditional_assign(&place, same);
        }
        standing(usize::try_from(at).ok().and_then(|at| self.0.get(at)), now)
    }

    /// The token that was found before.
    pub(super) fn find_again(&self, identity: &TokenIdentity, now: SystemTime) -> TokenCheck<'_> {
        standing(self.0.iter().find(|token| token.digest == identity.0), now)
    }
}

fn standing(token: Option<&Token>, now: SystemTime) -> TokenCheck<'_> {
    match token {
        None => TokenCheck::Unknown,
        Some(token) if token.expires.is_some_and(|expires| expires <= now) => TokenCheck::Expired(token),
        Some(token) => TokenCheck::Valid(token),
    }
}

fn parse_line(line: &str) -> Result<Token, TokenError> {
    let mut fields = line.split_whitespace();
    let (Some(name), Some(stored)) = (fields.next(), fields.next()) else {
        return Err(TokenError::Form);
    };
    check_name(name)?;
    let hex = stored.strip_prefix("sha256:").ok_or(TokenError::Form)?;
    let digest = from_hex(hex).ok_or(TokenError::Digest)?;
    let mut options = Options::default();
    for field in fields {
        let twice = match field.split_once(':') {
            Some(("expires", time)) => options.expires.replace(parse_time(time).ok_or(TokenError::Expiry)?).is_some(),
            Some(("scope", REMEDIATE)) => std::mem::replace(&mut options.may_remediate, true),
            Some(("rate", rate)) => options.rate.replace(parse_rate(rate)?).is_some(),
            _ => return Err(TokenError::Form),
        };
        if twice {
            return Err(TokenError::Form);
        }
    }
    Ok(Token::stored(name, digest, options))
}

/// Requests per second of a token's line, such as `20/s`.
///
/// # Errors
/// What was expected.
pub fn parse_rate(text: &str) -> Result<u32, TokenError> {
    let digits = text.strip_suffix("/s").filter(|digits| digits.bytes().all(|byte| byte.is_ascii_digit()));
    let rate = digits.and_then(|digits| digits.parse().ok()).filter(|rate| (1..=MAX_RATE).contains(rate));
    rate.ok_or(TokenError::Rate)
}

/// A rate with a burst of [`BURST_SECONDS`].
fn per_second(rate: u32) -> RateLimit {
    let interval = Duration::from_secs(1).checked_div(rate).unwrap_or(Duration::from_secs(1));
    RateLimit { interval, burst: rate.saturating_mul(BURST_SECONDS) }
}

/// A name that can stand in the file and in a log line.
///
/// # Errors
/// What a name takes.
fn check_name(name: &str) -> Result<(), TokenError> {
    let good = |byte: u8| byte.is_ascii_alphanumeric() || b"._@-".contains(&byte);
    // What begins like a secret is one in the wrong place.
    let named = !name.is_empty() && name.len() <= MAX_NAME_BYTES && name.bytes().all(good) && !name.starts_with(PREFIX);
    if !named {
        return Err(TokenError::Name);
    }
    // In another case, it would still be read as that.
    if name.eq_ignore_ascii_case(AUTO) { Err(TokenError::Reserved) } else { Ok(()) }
}

/// A time in RFC 3339, or a day, which then ends the token as it begins.
#[must_use]
pub fn parse_time(text: &str) -> Option<SystemTime> {
    let time = if text.contains('T') { text.to_owned() } else { format!("{text}T00:00:00Z") };
    humantime::parse_rfc3339(&time).ok()
}

fn digest(secret: &[u8]) -> [u8; 32] {
    Sha256::digest(secret).into()
}

/// A token just made: the one time that its secret can be seen.
pub struct NewToken {
    /// The secret, for the client that uses it.
    pub secret: String,
    /// The line to be stored.
    pub line: String,
}

/// Makes a token.
///
/// # Errors
/// Where the name is none, or the system has no randomness.
pub fn make(name: &str, options: Options) -> Result<NewToken, TokenError> {
    check_name(name)?;
    let mut random = [0; SECRET_BYTES];
    getrandom::fill(&mut random).map_err(TokenError::Random)?;
    let secret = format!("{PREFIX}{}", hex(&random));
    let mut line = format!("{name} sha256:{}", hex(&digest(secret.as_bytes())));
    if let Some(expires) = options.expires {
        line.push_str(&format!(" expires:{}", humantime::format_rfc3339_seconds(expires)));
    }
    if let Some(rate) = options.rate {
        line.push_str(&format!(" rate:{rate}/s"));
    }
    if options.may_remediate {
        line.push_str(&format!(" scope:{REMEDIATE}"));
    }
    Ok(NewToken { secret, line })
}

fn from_hex(text: &str) -> Option<[u8; 32]> {
    let mut bytes = [0; 32];
    if text.len() != 64 || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    for (byte, digits) in bytes.iter_mut().zip(text.as_bytes().chunks(2)) {
        *byte = u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(presented: &TokenCheck<'_>) -> String {
        match presented {
            TokenCheck::Valid(token) => token.name.clone(),
            TokenCheck::Expired(token) => format!("{} expired", token.name),
            TokenCheck::Unknown => "unknown".to_owned(),
        }
    }

    #[test]
    fn what_is_made_can_be_stored_and_opens() {
        let now = SystemTime::now();
        let expiring = Options { expires: Some(now + Duration::from_secs(60)), rate: Some(30), may_remediate: true };
        let (ops, ci) = (make("ops", Options::default()).unwrap(), make("ci", expiring).unwrap());
        assert_ne!(ops.secret, ci.secret);
        assert!(ops.secret.starts_with("slt_") && ops.secret.len() == 68 && !ops.line.contains(&ops.secret[4..]));
        let tokens = Tokens::parse(&format!("# who: what for\n\n  {}\r\n{}\n", ops.line, ci.line)).unwrap();
        let found = |secret: &str, at| name(&tokens.find(secret.as_bytes(), at));
        assert_eq!(found(&ops.secret, now), "ops");
        assert_eq!(found(&ci.secret, now), "ci");
        assert_eq!(found(&ci.secret, now + Duration::from_secs(61)), "ci expired");
        assert_eq!(found(&ops.secret, now + Duration::from_secs(61)), "ops");
        for wrong in ["", "slt_", &ops.secret[1..], &ops.secret.to_uppercase(), &format!("{}0", ops.secret), &ops.line]
        {
            assert_eq!(found(wrong, now), "unknown", "{wrong}");
        }
    }

    #[test]
    fn lines_that_are_wrong_are_named_and_not_repeated() {
        let secret = "5".repeat(64);
        let good = format!("a sha256:{secret}");
        for (text, expected) in [
            ("ops".to_owned(), "line 1: expected NAME sha256:DIGEST"),
            (format!("{good}\nops {secret}"), "line 2: expected NAME sha256:DIGEST"),
            (format!("ops sha256:{}", &secret[1..]), "line 1: expected 64 hexadecimal digits"),
            (format!("ops sha256:{}é", &secret[2..]), "line 1: expected 64 hexadecimal digits"),
            (format!("ops sha256:{} until:5", "6".repeat(64)), "line 1: expected NAME sha256:DIGEST"),
            (format!("ops sha256:{secret} expires:soon"), "line 1: expected a time such as"),
            (format!("ops sha256:{secret} expires:2027-02-30"), "line 1: expected a time such as"),
            (format!("ops sha256:{secret} expires:2027-02-28 5"), "line 1: expected NAME sha256:DIGEST"),
            (format!("ops sha256:{secret} rate:5"), "line 1: expected a rate from 1/s"),
            (format!("ops sha256:{secret} rate:0/s"), "line 1: expected a rate from 1/s"),
            (format!("ops sha256:{secret} rate:-1/s"), "line 1: expected a rate from 1/s"),
            (format!("ops sha256:{secret} rate:1000001/s"), "line 1: expected a rate from 1/s"),
            (format!("ops sha256:{secret} rate:5/s rate:6/s"), "line 1: expected NAME sha256:DIGEST"),
            (format!("slt_{secret} sha256:{secret}"), "line 1: token name: expected"),
            (format!("o\"ps sha256:{secret}"), "line 1: token name: expected"),
            (format!("auto sha256:{secret}"), "line 1: token name: expected another name than auto"),
            (format!("Auto sha256:{secret} scope:remediate"), "line 1: token name: expected another name than auto"),
            (format!("{good}\na sha256:{}", "6".repeat(64)), "line 2: there is another token named \"a\""),
            (format!("{good}\n#\nb sha256:{secret}"), "line 3: the tokens \"a\" and \"b\" have the same secret"),
        ] {
            let error = Tokens::parse(&text).unwrap_err().to_string();
            assert!(error.starts_with(expected), "{error}");
            assert!(!error.contains("555") && !error.contains('\n'), "{error}");
        }
        // Cut after the digest, it would not expire any more.
        let line = format!("a sha256:{secret} expires:2027-01-31T12:00:00Z\n");
        assert!(Tokens::parse(&line).is_ok() && Tokens::parse("").is_ok());
        for end in 1..line.len() {
            let error = Tokens::parse(&line[..end]).unwrap_err().to_string();
            assert!(error.contains("expected"), "{error}");
        }
        for text in [format!("{good}\nb sha256:{}", "6".repeat(64)), "#".to_owned(), format!("{good}\n#\n ")] {
            assert!(Tokens::parse(&text).unwrap_err().to_string().contains("a line end after the last line"), "{text}");
        }
        let many: String = (0..=MAX_TOKENS).map(|n| format!("t{n} sha256:{n:064}\n")).collect();
        assert!(Tokens::parse(&many).unwrap_err().to_string().contains("more than 1000 tokens"));
    }

    #[test]
    fn a_token_cannot_be_printed() {
        let made = make("ops", Options::default()).unwrap();
        let mut tokens = Tokens::parse(&format!("{}\n", made.line)).unwrap();
        tokens.add(Token::new(DEFAULT_NAME, "hunter2").unwrap()).unwrap();
        let shown = format!("{tokens:?}");
        assert!(shown.contains("ops") && !shown.contains("hunter2") && !shown.contains(&made.line[11..]), "{shown}");
        for unsendable in ["", " ", "a b", "a\n", "é"] {
            assert!(Token::new(DEFAULT_NAME, unsendable).is_none(), "{unsendable:?}");
        }
    }

    #[test]
    fn a_line_may_carry_a_rate_in_any_order() {
        let (secret, now) = ("5".repeat(64), SystemTime::now());
        for (options, expected) in [
            ("", None),
            (" expires:2100-01-01", None),
            (" rate:20/s", Some((50, 40))),
            (" rate:20/s expires:2100-01-01", Some((50, 40))),
            (" expires:2100-01-01 rate:1/s", Some((1000, 2))),
        ] {
            let tokens = Tokens::parse(&format!("ops sha256:{secret}{options}\n")).unwrap();
            let rate = tokens.0[0].rate.map(|rate| (rate.interval.as_millis(), rate.burst));
            assert_eq!(rate, expected, "{options}");
            assert!(tokens.0[0].expires.is_none_or(|expires| expires > now));
        }
        let made = make("ops", Options { rate: Some(30), ..Options::default() }).unwrap();
        assert!(made.line.ends_with(" rate:30/s"), "{}", made.line);
        assert_eq!(Tokens::parse(&format!("{}\n", made.line)).unwrap().0[0].rate.unwrap().burst, 60);
    }

    #[test]
    fn each_token_has_its_own_rate() {
        let rate = RateLimit { interval: Duration::from_millis(100), burst: 2 };
        let (one, other) = (Token::new("a", "a").unwrap(), Token::new("b", "b").unwrap());
        let passed = |token: &Token| (0..5).filter(|_| token.take(rate, Duration::from_secs(9)).passes.is_ok()).count();
        assert_eq!((passed(&one), passed(&other), passed(&one)), (2, 2, 0));
    }
}
