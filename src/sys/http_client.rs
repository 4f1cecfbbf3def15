//! One request over HTTP/1.1, with or without TLS. No redirect is followed: an answer must not lead elsewhere what is meant for one server.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, LengthLimitError, Limited};
use hyper::client::conn::http1;
use hyper::header::{CONTENT_TYPE, HOST, HeaderName, HeaderValue, RETRY_AFTER, USER_AGENT};
use hyper::{Request, StatusCode};
use hyper_util::rt::TokioIo;
use memchr::memmem;
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use sha2::{Digest as _, Sha256};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout_at};
use tokio_rustls::TlsConnector;

use crate::model::text::hex;
use crate::sys::dial::{Resolver, connect_tcp};

/// How long a receiver may take, from the connection to the end of its answer: what Alertmanager gives webhooks.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Bytes of an answer that are read: an answer says hardly more than yes or no.
const MAX_ANSWER: usize = 16 * 1024;

/// Characters of an answer that an error repeats.
const MAX_SHOWN: usize = 200;

/// Characters of a path that are no secret when an answer repeats them: words are as long.
const MIN_SECRET: usize = 8;

/// Bytes of an endpoint's digest that are used: enough to tell some receivers apart.
const DIGEST_BYTES: usize = 8;

/// The longest wait that a receiver may ask for.
const MAX_RETRY_AFTER: Duration = Duration::from_secs(3600);

/// Where a receiver is. Shown without its path, which may be a secret.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct HttpEndpoint {
    tls: bool,
    host: String,
    port: u16,
    path: String,
}

impl fmt::Debug for HttpEndpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.authority())
    }
}

/// Why a URL is not that of a receiver. It is not repeated: that of many webhooks is a secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EndpointError {
    /// No URL, or one that cannot be asked.
    #[error("expected a URL such as https://host:port/path")]
    Form,
    /// It has a login in it.
    #[error("expected a URL without user and password")]
    Login,
}

/// Why there is no client of receivers.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum ClientError {
    /// CA certificates that are none.
    #[error("expected PEM with one or more certificates")]
    Ca,
    /// TLS cannot be had.
    #[error(transparent)]
    Tls(#[from] rustls::Error),
}

impl HttpEndpoint {
    /// From a URL.
    ///
    /// # Errors
    /// What is expected; the URL is not repeated.
    pub fn parse(url: &str) -> Result<Self, EndpointError> {
        let uri: hyper::Uri = url.parse().map_err(|_| EndpointError::Form)?;
        let tls = match uri.scheme_str() {
            Some("https") => true,
            Some("http") => false,
            _ => return Err(EndpointError::Form),
        };
        let authority = uri.authority().ok_or(EndpointError::Form)?;
        if authority.as_str().contains('@') {
            return Err(EndpointError::Login);
        }
        let host = authority.host();
        if host.is_empty() || ServerName::try_from(host.trim_matches(['[', ']']).to_owned()).is_err() {
            return Err(EndpointError::Form);
        }
        // What is no port must not become another one.
        let port = match authority.as_str().get(host.len()..).unwrap_or_default().strip_prefix(':') {
            None => Some(if tls { 443 } else { 80 }),
            Some(port) => port.bytes().all(|byte| byte.is_ascii_digit()).then(|| port.parse().ok()).flatten(),
        };
        let port = port.ok_or(EndpointError::Form)?;
        let path = uri.path_and_query().map_or("/", |path| path.as_str()).to_owned();
        Ok(Self { tls, host: host.to_owned(), port, path })
    }

    /// Host and port.
    #[must_use]
    pub fn authority(&self) -> String {
        format!("{}:{}", self.host, self.port)
    }

    /// A digest of all of it: without the path, two may look the same.
    #[must_use]
    pub fn digest(&self) -> String {
        let digest = Sha256::digest(format!("{} {} {} {}", self.tls, self.host, self.port, self.path));
        hex(&digest[..DIGEST_BYTES])
    }

    /// Whether what is sent can be read on its way: neither by TLS nor because it does not leave the machine.
    #[must_use]
    pub fn is_plain_elsewhere(&self) -> bool {
        let host = self.host.trim_matches(['[', ']']);
        let loopback = host == "localhost" || host.parse().is_ok_and(|address: std::net::IpAddr| address.is_loopback());
        !self.tls && !loopback
    }

    /// Whether the path may be a secret: many a webhook knows who may send by it.
    #[must_use]
    pub fn has_path(&self) -> bool {
        self.path != "/"
    }

    /// The URL, with `***` in place of a path that may be a secret.
    #[must_use]
    pub fn without_path(&self) -> String {
        let (scheme, path) = (if self.tls { "https" } else { "http" }, if self.has_path() { "/***" } else { "" });
        format!("{scheme}://{}{path}", self.authority())
    }

    /// Whether a text repeats the path, or so much of one of its pieces that it may be the secret, as it is or percent-decoded.
    fn is_repeated_by(&self, text: &str) -> bool {
        let lower = |text: &str| text.to_ascii_lowercase();
        let texts = [lower(text), lower(&decoded(text))];
        let is_there = |part: &[u8]| texts.iter().any(|text| memmem::find(text.as_bytes(), part).is_some());
        let without_query = self.path.split('?').next().unwrap_or_default();
        let mut whole = [self.path.as_str(), without_query].into_iter().filter(|path| *path != "/");
        let mut pieces = self.path.split(['/', '?', '&', '=']);
        whole.any(|path| is_there(lower(path).as_bytes()) || is_there(lower(&decoded(path)).as_bytes()))
            || pieces.any(|piece| {
                let forms = [lower(piece), lower(&decoded(piece))];
                forms.iter().any(|piece| piece.as_bytes().windows(MIN_SECRET).any(is_there))
            })
    }

    /// The same server with this behind its path.
    #[must_use]
    pub fn below(&self, path: &str) -> Self {
        Self { path: format!("{}{path}", self.path.trim_end_matches('/')), ..self.clone() }
    }
}

/// Percent-decoded.
fn decoded(text: &str) -> Cow<'_, str> {
    if !text.contains('%') {
        return Cow::Borrowed(text);
    }
    // Without what a form gives a meaning of its own, a text is one name.
    let name = text.replace('&', "%26").replace('=', "%3D").replace('+', "%2B");
    let decoded = form_urlencoded::parse(name.as_bytes()).next().map(|(name, _)| name.into_owned());
    Cow::Owned(decoded.unwrap_or_default())
}

/// Why a receiver was not told.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{why}")]
pub struct SendError {
    /// Why, in a few words.
    pub why: String,
    /// Whether the same message may be taken another time.
    pub is_temporary: bool,
    /// How long the receiver asks to wait.
    pub retry_after: Option<Duration>,
}

impl SendError {
    fn temporary(why: impl fmt::Display) -> Self {
        Self { why: why.to_string(), is_temporary: true, retry_after: None }
    }
}

/// Names of receivers that are looked up at a time, over all receivers. A slow lookup cannot be ended and keeps a thread, of the few that
/// there are for all of the program.
pub const MAX_LOOKUPS: usize = 1;

/// A client of receivers.
pub struct HttpClient {
    tls: TlsConnector,
}

impl HttpClient {
    /// One that trusts these CA certificates (PEM), or the system's.
    ///
    /// # Errors
    /// What is expected of them.
    pub fn new(ca: Option<&[u8]>) -> Result<Self, ClientError> {
        let mut roots = RootCertStore::empty();
        match ca {
            None => drop(roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs)),
            Some(pem) => {
                for certificate in CertificateDer::pem_slice_iter(pem) {
                    roots.add(certificate.map_err(|_| ClientError::Ca)?).map_err(|_| ClientError::Ca)?;
                }
                if roots.is_empty() {
                    return Err(ClientError::Ca);
                }
            }
        }
        let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()?;
        let config = config.with_root_certificates(roots).with_no_client_auth();
        Ok(Self { tls: TlsConnector::from(Arc::new(config)) })
    }

    /// The way to one receiver; `lookups` has [`MAX_LOOKUPS`] permits, and is that of all receivers.
    #[must_use]
    pub fn to(&self, endpoint: HttpEndpoint, lookups: &Arc<Semaphore>) -> Sender {
        Sender { tls: self.tls.clone(), to: endpoint, resolver: Resolver::sharing(lookups) }
    }
}

/// The way to one receiver.
pub struct Sender {
    tls: TlsConnector,
    to: HttpEndpoint,
    resolver: Resolver,
}

/// What a server answered, whatever its status.
#[derive(Debug)]
pub struct HttpAnswer {
    /// The status.
    pub status: StatusCode,
    /// Seconds of its `Retry-After`.
    pub retry_after: Option<Duration>,
    /// The whole body.
    pub body: Bytes,
}

/// Why there is no whole answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{why}")]
pub struct NoAnswer {
    /// Why, in a few words.
    pub why: String,
    /// Whether something answered that does not speak HTTP, or TLS where the URL says so.
    pub is_other_protocol: bool,
}

impl NoAnswer {
    fn because(why: impl fmt::Display) -> Self {
        Self { why: why.to_string(), is_other_protocol: false }
    }
}

impl From<hyper::Error> for NoAnswer {
    fn from(error: hyper::Error) -> Self {
        Self { why: error.to_string(), is_other_protocol: error.is_parse() }
    }
}

/// How long an answer may take, from the connection to its end, and how many bytes it may have.
#[derive(Clone, Copy, Debug)]
pub struct AnswerLimits {
    /// The time.
    pub time: Duration,
    /// The bytes of its body.
    pub bytes: usize,
}

impl Sender {
    /// Sends JSON.
    ///
    /// # Errors
    /// Where it was not taken: no connection, no whole answer in time, another status than 2xx.
    pub async fn post(&mut self, headers: &[(HeaderName, HeaderValue)], body: Bytes) -> Result<(), SendError> {
        const LIMITS: AnswerLimits = AnswerLimits { time: TIMEOUT, bytes: MAX_ANSWER };
        let answer = self.ask(headers, "application/json", body, LIMITS).await;
        let answer = answer.map_err(|error| SendError::temporary(error.why))?;
        let status = answer.status;
        if status.is_success() {
            return Ok(());
        }
        let said: String = String::from_utf8_lossy(&answer.body).chars().filter(|c| !c.is_control()).collect();
        let why = if status.is_redirection() {
            format!("{status}: redirects are not followed")
        } else if said.is_empty() || self.to.is_repeated_by(&said) {
            status.to_string()
        } else {
            format!("{status}: {}", said.chars().take(MAX_SHOWN).collect::<String>())
        };
        Err(SendError {
            why,
            is_temporary: status.is_server_error() || [408, 425, 429].contains(&status.as_u16()),
            retry_after: answer.retry_after,
        })
    }

    /// Posts a body of this type; the answer, whatever its status.
    ///
    /// # Errors
    /// Where there is no connection, or no whole answer within the limits.
    pub async fn ask(
        &mut self,
        headers: &[(HeaderName, HeaderValue)],
        content_type: &'static str,
        body: Bytes,
        limits: AnswerLimits,
    ) -> Result<HttpAnswer, NoAnswer> {
        let deadline = Instant::now() + limits.time;
        let mut request = Request::post(self.to.path.as_str())
            .header(HOST, self.to.authority())
            .header(USER_AGENT, concat!("streamlag/", env!("CARGO_PKG_VERSION")))
            .header(CONTENT_TYPE, content_type);
        for (name, value) in headers {
            request = request.header(name, value);
        }
        let request = request.body(Full::new(body)).map_err(NoAnswer::because)?;
        let answer = timeout_at(deadline, self.send(request, deadline, limits.bytes)).await;
        let late = |_| Err(NoAnswer::because(format_args!("no answer within {} s", limits.time.as_secs())));
        answer.unwrap_or_else(late)
    }

    async fn send(
        &mut self,
        request: Request<Full<Bytes>>,
        deadline: Instant,
        max_bytes: usize,
    ) -> Result<HttpAnswer, NoAnswer> {
        let Self { tls, to, resolver } = self;
        let host = to.host.trim_matches(['[', ']']);
        let addresses = resolver.look_up(host, to.port).await.map_err(NoAnswer::because)?;
        let stream = connect_tcp(&addresses, deadline).await.map_err(NoAnswer::because)?;
        if !to.tls {
            return exchange(stream, request, max_bytes).await;
        }
        let name = ServerName::try_from(host.to_owned()).map_err(NoAnswer::because)?;
        let stream = tls.connect(name, stream).await.map_err(|error| {
            // What is no message of TLS is plain text, most of all.
            let tls = error.get_ref().and_then(|inner| inner.downcast_ref());
            let is_other_protocol = matches!(tls, Some(rustls::Error::InvalidMessage(_)));
            NoAnswer { is_other_protocol, ..NoAnswer::because(error) }
        })?;
        exchange(stream, request, max_bytes).await
    }
}

async fn exchange(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    request: Request<Full<Bytes>>,
    max_bytes: usize,
) -> Result<HttpAnswer, NoAnswer> {
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    let answered = async {
        let (head, body) = sender.send_request(request).await?.into_parts();
        // What is cut short was not said.
        let body = Limited::new(body, max_bytes).collect().await.map_err(|error| {
            let is_long = error.is::<LengthLimitError>();
            if is_long {
                NoAnswer::because(format_args!("an answer of more than {max_bytes} bytes"))
            } else {
                NoAnswer::because(error)
            }
        });
        let seconds = head.headers.get(RETRY_AFTER).and_then(|value| value.to_str().ok()?.parse().ok());
        Ok(HttpAnswer {
            status: head.status,
            retry_after: seconds.map(|seconds| Duration::from_secs(seconds).min(MAX_RETRY_AFTER)),
            body: body?.to_bytes(),
        })
    };
    tokio::pin!(answered);
    tokio::select! {
        answer = &mut answered => answer,
        // The connection may end as soon as the answer is there.
        ended = connection => match ended {
            Ok(()) => answered.await,
            Err(error) => Err(error.into()),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_is_taken_apart_or_refused_without_being_repeated() {
        const BAD_PORTS: [&str; 5] =
            ["https://h:99999/", "http://h:9o93/", "http://[::1]:99999/", "https://h:/", "https://h:+80/"];
        let parse = |url: &str| HttpEndpoint::parse(url).map(|to| (to.tls, to.host.clone(), to.port, to.path));
        assert_eq!(parse("https://h/x?y=z"), Ok((true, "h".to_owned(), 443, "/x?y=z".to_owned())));
        assert_eq!(parse("http://127.0.0.1:9093"), Ok((false, "127.0.0.1".to_owned(), 9093, "/".to_owned())));
        assert_eq!(parse("http://[::1]:9093/am/"), Ok((false, "[::1]".to_owned(), 9093, "/am/".to_owned())));
        for bad in ["", "h:9093", "ftp://h", "/x", "https://", "https://user:secret@h/"].into_iter().chain(BAD_PORTS) {
            let why = parse(bad).unwrap_err().to_string();
            assert!(why.starts_with("expected a URL") && !why.contains("secret"), "{bad}: {why}");
        }
        let below = HttpEndpoint::parse("http://h/am/").unwrap().below("/api/v2/alerts");
        assert_eq!(below.path, "/am/api/v2/alerts");
    }

    #[test]
    fn a_text_repeats_a_path_or_so_much_of_a_piece_that_it_may_be_the_secret() {
        let check = |path: &str, text: &str, expected: bool| {
            let to = HttpEndpoint::parse(&format!("https://h{path}")).unwrap();
            assert_eq!(to.is_repeated_by(text), expected, "{path}: {text}");
        };
        check("/services/T024/B036/s3cretT0ken", "Cannot POST /services/T024/B036/s3cretT0ken", true);
        check("/services/T024/B036/s3cretT0ken", "no token S3CRETT0KEN", true);
        check("/services/T024/B036/s3cretT0ken", "no token s3cretT0...", true);
        check("/services/T024/B036/s3cretT0ken", "no_service: T024, B036, s3cretT", false);
        check("/T1/B2/x", "cannot POST /T1/B2/x here", true);
        check("/T1/B2/x?a=b", "cannot POST /T1/B2/x here", true);
        check("/T1/B2/x", "cannot POST %2FT1%2FB2%2Fx here", true);
        check("/T1/B2/x", "cannot POST /T1/B2 here", false);
        check("/h?key=s3cret-t0ken&x=1", "unknown key s3cret-t0ken", true);
        check("/h/s3cret%2Bt%C3%B6ken", "unknown key s3cret+töken", true);
        check("/h/s3cret+t0ken", "unknown key s3cret%2Bt0ken", true);
        check("/h/%73%33%63", "unknown key %73%33%63", true);
        check("", "Cannot POST /", false);
        check("/", "Cannot POST /", false);
    }

    #[tokio::test]
    async fn a_receiver_waits_for_the_lookups_of_others_unless_it_has_an_address() {
        use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
        let server = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = server.local_addr().unwrap().port();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = server.accept().await {
                let _ = stream.read(&mut [0; 1024]).await;
                let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").await;
            }
        });
        let lookups = Arc::new(Semaphore::new(MAX_LOOKUPS));
        let client = HttpClient::new(None).unwrap();
        let sender = |host: &str| client.to(HttpEndpoint::parse(&format!("http://{host}:{port}/")).unwrap(), &lookups);
        assert_eq!(sender("localhost").post(&[], Bytes::new()).await, Ok(()));
        let slow = Arc::clone(&lookups).acquire_owned().await.unwrap();
        assert_eq!(sender("127.0.0.1").post(&[], Bytes::new()).await, Ok(()));
        tokio::time::pause();
        let error = sender("localhost").post(&[], Bytes::new()).await.unwrap_err();
        assert_eq!(error, SendError::temporary("no answer within 10 s"));
        tokio::time::resume();
        drop(slow);
        assert_eq!(sender("localhost").post(&[], Bytes::new()).await, Ok(()));
    }

    #[test]
    fn only_loopback_is_plain_and_here() {
        let check = |url: &str| HttpEndpoint::parse(url).unwrap().is_plain_elsewhere();
        assert!(check("http://example.org/") && check("http://10.0.0.1/"));
        assert!(!check("https://example.org/") && !check("http://localhost/") && !check("http://127.0.0.1:1/"));
        assert!(!check("http://[::1]/"));
    }
}
