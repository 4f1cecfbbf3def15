//! Sends the same ready bytes to everybody: what hyper itself reaches on this machine, which `make bench` holds the
//! program's metrics page against. It has the program's number of threads, `TCP_NODELAY`, and the headers it is given.
//!
//! Usage: `static_http PORT PLAIN_FILE GZIP_FILE [NAME:VALUE]...`; the headers are those of the plain answer, and that of
//! the gzip one has its content-encoding besides.

use std::convert::Infallible;
use std::error::Error;

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::header::{ACCEPT_ENCODING, CONTENT_ENCODING, HeaderMap, HeaderName, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpStream};

/// As many as the program has.
const WORKER_THREADS: usize = 2;

#[derive(Clone)]
struct Page {
    plain: Bytes,
    gzip: Bytes,
    headers: HeaderMap,
}

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let mut next = |what| arguments.next().ok_or(format!("{what} is missing; see the beginning of static_http.rs"));
    let port: u16 = next("the port")?.parse()?;
    let mut page = Page {
        plain: std::fs::read(next("the file of the plain page")?)?.into(),
        gzip: std::fs::read(next("the file of the gzip page")?)?.into(),
        headers: HeaderMap::new(),
    };
    for header in arguments {
        let (name, value) = header.split_once(':').ok_or(format!("'{header}': a header is NAME:VALUE"))?;
        page.headers.insert(HeaderName::try_from(name)?, HeaderValue::from_str(value.trim())?);
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(WORKER_THREADS).enable_io().build()?;
    runtime.block_on(async {
        let listener = TcpListener::bind(("127.0.0.1", port)).await?;
        loop {
            let (stream, _) = listener.accept().await?;
            stream.set_nodelay(true)?;
            tokio::spawn(serve(stream, page.clone()));
        }
    })
}

async fn serve(stream: TcpStream, page: Page) {
    let answers = service_fn(|request: Request<Incoming>| {
        let gzip = request.headers().get(ACCEPT_ENCODING).is_some_and(|value| value == "gzip");
        let body = if gzip { page.gzip.clone() } else { page.plain.clone() };
        let mut answer = Response::new(Full::new(body));
        *answer.headers_mut() = page.headers.clone();
        if gzip {
            answer.headers_mut().insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
        }
        async { Ok::<_, Infallible>(answer) }
    });
    // A client that hangs up is no error here.
    let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), answers).await;
}
