//! Looks up a host and connects to it.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use tokio::net::{TcpStream, lookup_host};
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout_at};

/// Looks the name of one host up, and never twice at a time: a lookup that hangs cannot be ended, only waited for, and each has a thread.
#[derive(Debug, Default)]
pub struct Resolver {
    lookup: Option<JoinHandle<io::Result<Vec<SocketAddr>>>>,
    /// A lookup has one of these permits until it ends, also where nobody waits for it any more.
    permits: Option<Arc<Semaphore>>,
}

/// A lookup is not shared.
impl Clone for Resolver {
    fn clone(&self) -> Self {
        Self { lookup: None, permits: self.permits.clone() }
    }
}

impl Resolver {
    /// One of several, which look up at most as many names at a time as there are permits.
    #[must_use]
    pub fn sharing(permits: &Arc<Semaphore>) -> Self {
        Self { lookup: None, permits: Some(Arc::clone(permits)) }
    }

    /// The addresses of the host, which is always the same one. Where a waiting caller gives up, the next one waits for the same lookup.
    ///
    /// # Errors
    /// The name cannot be looked up.
    pub async fn look_up(&mut self, host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
        if let Ok(address) = host.parse::<IpAddr>() {
            return Ok(vec![SocketAddr::new(address, port)]);
        }
        let lookup = match &mut self.lookup {
            Some(lookup) => lookup,
            None => {
                // Waited for here, so that who gives up leaves the queue.
                let permit = match &self.permits {
                    Some(permits) => Some(Arc::clone(permits).acquire_owned().await.map_err(io::Error::other)?),
                    None => None,
                };
                let host = host.to_owned();
                self.lookup.insert(tokio::spawn(async move {
                    let _permit = permit;
                    Ok(lookup_host((host.as_str(), port)).await?.collect())
                }))
            }
        };
        let found = lookup.await;
        self.lookup = None;
        found.map_err(io::Error::other)?
    }
}

/// Tries each address of a host, in the resolver's order. None may take more than its share of the time.
///
/// # Errors
/// No address answered: what the last one had against it.
pub async fn connect_tcp(addresses: &[SocketAddr], deadline: Instant) -> io::Result<TcpStream> {
    let mut trouble = io::Error::other("the host has no address");
    for (tried, address) in addresses.iter().enumerate() {
        let now = Instant::now();
        let left = u32::try_from(addresses.len() - tried).unwrap_or(u32::MAX);
        let share = deadline.saturating_duration_since(now) / left;
        match timeout_at(now + share, TcpStream::connect(address)).await {
            Ok(Ok(stream)) => return Ok(stream),
            Ok(Err(error)) => trouble = error,
            Err(_) => trouble = io::ErrorKind::TimedOut.into(),
        }
    }
    Err(trouble)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn soon() -> Instant {
        Instant::now() + Duration::from_millis(10)
    }

    #[tokio::test]
    async fn a_lookup_that_was_given_up_is_waited_for_and_not_begun_again() {
        let hanging = tokio::spawn(std::future::pending());
        let which = hanging.id();
        let mut resolver = Resolver { lookup: Some(hanging), permits: None };
        assert!(timeout_at(soon(), resolver.look_up("localhost", 1)).await.is_err());
        assert_eq!(resolver.lookup.as_ref().map(JoinHandle::id), Some(which));
        resolver.lookup = None;
        assert!(!resolver.look_up("localhost", 1).await.unwrap().is_empty());
        assert!(resolver.lookup.is_none());
    }

    #[tokio::test]
    async fn lookups_that_share_permits_wait_for_each_other_and_addresses_need_none() {
        let permits = Arc::new(Semaphore::new(1));
        let [mut one, mut other] = [Resolver::sharing(&permits), Resolver::sharing(&permits).clone()];
        let held = Arc::clone(&permits).acquire_owned().await.unwrap();
        assert!(timeout_at(soon(), one.look_up("localhost", 1)).await.is_err());
        assert!(timeout_at(soon(), other.look_up("localhost", 1)).await.is_err());
        assert!(one.lookup.is_none() && other.lookup.is_none(), "a lookup began");
        for (address, expected) in [("127.0.0.1", "127.0.0.1:7"), ("::1", "[::1]:7")] {
            let found = timeout_at(soon(), one.look_up(address, 7)).await.expect("it waited");
            assert_eq!(found.unwrap(), [expected.parse().unwrap()]);
        }
        drop(held);
        assert!(!one.look_up("localhost", 1).await.unwrap().is_empty());
        assert!(!other.look_up("localhost", 1).await.unwrap().is_empty());
        assert_eq!(permits.available_permits(), 1);
    }

    #[test]
    fn a_lookup_that_nobody_waits_for_keeps_its_permit_until_it_ends() {
        let mut only_one_thread = tokio::runtime::Builder::new_current_thread();
        let runtime = only_one_thread.enable_all().max_blocking_threads(1).build().unwrap();
        runtime.block_on(async {
            // While the only thread is busy, a lookup hangs.
            let (release, released) = std::sync::mpsc::sync_channel::<()>(1);
            let busy = tokio::task::spawn_blocking(move || released.recv());
            let permits = Arc::new(Semaphore::new(1));
            let mut resolver = Resolver::sharing(&permits);
            assert!(timeout_at(soon(), resolver.look_up("localhost", 1)).await.is_err());
            drop(resolver);
            tokio::task::yield_now().await;
            assert_eq!(permits.available_permits(), 0);
            drop(release);
            busy.await.unwrap().unwrap_err();
            drop(permits.acquire().await.unwrap());
        });
    }

    #[tokio::test]
    async fn the_first_address_that_answers_is_taken() {
        let server = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let there = server.local_addr().unwrap();
        let nobody = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
        // Reserved for examples: no answer, or no route.
        let silent = "192.0.2.1:6379".parse().unwrap();
        let deadline = || Instant::now() + Duration::from_secs(3);
        let found = connect_tcp(&[silent, nobody, there], deadline()).await.unwrap();
        assert_eq!(found.peer_addr().unwrap(), there);
        assert!(connect_tcp(&[nobody], deadline()).await.unwrap_err().to_string().contains("refused"));
        assert!(connect_tcp(&[], deadline()).await.is_err());
    }
}
