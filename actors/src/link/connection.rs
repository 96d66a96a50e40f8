//! A connection to the broker: dialled by a loop of ours, watched, and checked before it is used.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_nats::connection::State as ConnectionState;
use async_nats::{Client, ConnectErrorKind, ConnectOptions, Message, Request, RequestErrorKind};
use fellrec::told::chain;
use thiserror::Error;
use tokio::sync::{broadcast, watch};
use tokio::time::{Instant, sleep};
use tracing::debug;

use super::ears::Ears;
use super::envelope::Letter;
use super::subjects::inbox;
use crate::registry::MemberName;

/// Oldest broker that is known to work: JetStream's settings and permissions are those of 2.12.
const OLDEST_BROKER: (u64, u64) = (2, 12);
/// Least `max_payload` of a broker: a chunk and its header.
const LEAST_PAYLOAD: usize = 64 << 10;
/// Longest wait for the answer to one request of the link; what takes longer is asked for again.
pub const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);
/// Pauses between attempts to dial.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_millis(500);

/// Where the broker is and who dials it.
#[derive(Clone, Debug)]
pub struct Dial {
    /// Address of the broker, `host:port`.
    pub broker: String,
    /// Who dials.
    pub member: MemberName,
    /// Certificates of mutual TLS; without them the broker must ask for none.
    pub tls: Option<TlsFiles>,
    /// How long the broker may be away, at the start and later.
    pub patience: Duration,
}

/// Files of mutual TLS.
#[derive(Clone, Debug)]
pub struct TlsFiles {
    /// The federation's own authority.
    pub ca: PathBuf,
    /// This member's certificate.
    pub cert: PathBuf,
    /// Its key.
    pub key: PathBuf,
}

/// Why there is no connection.
#[derive(Debug, Error)]
pub enum DialError {
    /// The broker knows the member not, or no longer.
    #[error(
        "the broker at {broker} refuses {member}: its certificate is of another authority, expired or \
         revoked; `fellrec provision renew` makes a new one"
    )]
    Refused {
        /// Its address.
        broker: String,
        /// Who was refused.
        member: MemberName,
    },
    /// Nothing answers.
    #[error("no broker at {broker} for {} s: {cause}; is it running, and is the address right?", patience.as_secs())]
    Away {
        /// Its address.
        broker: String,
        /// How long it was tried.
        patience: Duration,
        /// What was seen last.
        cause: String,
    },
    /// An older broker.
    #[error(
        "the broker at {broker} is nats-server {got}, expected 2.12 or newer: `scripts/nats.sh` brings one"
    )]
    OldBroker {
        /// Its address.
        broker: String,
        /// Its version.
        got: String,
    },
    /// A broker that lets only small messages through.
    #[error(
        "the broker at {broker} has max_payload {got}, expected at least {LEAST_PAYLOAD} bytes"
    )]
    SmallPayload {
        /// Its address.
        broker: String,
        /// Its limit. Unit: bytes.
        got: usize,
    },
    /// A subscription could not be made.
    #[error("failed to subscribe to {subject}: {cause}")]
    Subscribe {
        /// What was to be heard.
        subject: String,
        /// What the library said.
        cause: String,
    },
}

/// Why one request got no answer.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum RequestFault {
    /// The connection is down, or went down.
    #[error("the connection to the broker is down")]
    Disconnected,
    /// Nobody listens there.
    #[error("nobody listens")]
    NobodyListens,
    /// No answer in time.
    #[error("no answer in time")]
    Late,
    /// The broker does not let this member publish there.
    #[error("the broker does not let this member publish to {0}")]
    Forbidden(String),
    /// Anything else.
    #[error("{0}")]
    Other(String),
}

impl RequestFault {
    /// Whether the same request may do better later.
    pub fn is_retryable(&self) -> bool {
        !matches!(self, Self::Forbidden(_))
    }
}

/// One connection and what is seen of it.
#[derive(Clone)]
pub struct Connection {
    client: Client,
    /// Counts the times it went down.
    downs: watch::Receiver<u64>,
    /// When it came up last.
    up_since: watch::Receiver<Instant>,
    /// Subjects that the broker did not let this member publish to.
    forbidden: broadcast::Sender<Arc<str>>,
}

impl Connection {
    /// Dials until the broker answers; stops at once where waiting cannot help.
    ///
    /// # Errors
    /// Every [`DialError`] but [`DialError::Subscribe`].
    pub async fn dial(dial: &Dial, purpose: &str) -> Result<Self, DialError> {
        let Dial { broker, member, patience, .. } = dial;
        let started = Instant::now();
        let mut pause = FIRST_PAUSE;
        loop {
            let (down, downs) = watch::channel(0);
            let (up, up_since) = watch::channel(Instant::now());
            let (forbidden, _) = broadcast::channel(64);
            let ears = Ears { member: *member, down, up, forbidden: forbidden.clone() };
            let options = options(dial, purpose, ears);
            let error = match options.connect(broker.as_str()).await {
                Ok(client) => {
                    check(&client, broker)?;
                    return Ok(Self { client, downs, up_since, forbidden });
                }
                Err(error) => error,
            };
            use ConnectErrorKind::{Authentication, AuthorizationViolation};
            if matches!(error.kind(), Authentication | AuthorizationViolation) {
                return Err(DialError::Refused { broker: broker.clone(), member: *member });
            }
            if started.elapsed() >= *patience {
                let (broker, cause) = (broker.clone(), chain(&error));
                return Err(DialError::Away { broker, patience: *patience, cause });
            }
            debug!(broker, error = chain(&error), "the broker does not answer, trying again");
            sleep(pause).await;
            pause = (2 * pause).min(LONGEST_PAUSE);
        }
    }

    /// Largest message that the broker takes. Unit: bytes.
    pub fn max_payload(&self) -> usize {
        self.client.server_info().max_payload
    }

    /// The client, for what the link does not do.
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// Whether it is up.
    pub fn is_up(&self) -> bool {
        self.client.connection_state() == ConnectionState::Connected
    }

    /// How long it has been up.
    pub fn up_for(&self) -> Duration {
        self.up_since.borrow().elapsed()
    }

    /// One request; fails as soon as it is known that no answer will come.
    pub async fn request(
        &self,
        subject: &str,
        letter: Option<Letter>,
        within: Duration,
    ) -> Result<Message, RequestFault> {
        if !self.is_up() {
            // The library would keep it, and send it whenever the connection is back.
            return Err(RequestFault::Disconnected);
        }
        let (mut downs, mut forbidden) = (self.downs.clone(), self.forbidden.subscribe());
        downs.mark_unchanged();
        let mut request = Request::new().timeout(Some(within));
        if let Some(Letter { headers, body }) = letter {
            request = request.headers(headers).payload(body);
        }
        let denied = async {
            loop {
                match forbidden.recv().await {
                    Ok(denied) if *denied == *subject => return,
                    Ok(_) | Err(broadcast::error::RecvError::Lagged(_)) => {}
                    Err(broadcast::error::RecvError::Closed) => std::future::pending().await,
                }
            }
        };
        tokio::select! {
            answer = self.client.send_request(subject.to_owned(), request) => {
                answer.map_err(|error| match error.kind() {
                    RequestErrorKind::TimedOut => RequestFault::Late,
                    RequestErrorKind::NoResponders => RequestFault::NobodyListens,
                    _ => RequestFault::Other(chain(&error)),
                })
            }
            () = denied => Err(RequestFault::Forbidden(subject.to_owned())),
            _ = downs.changed() => Err(RequestFault::Disconnected),
        }
    }

    /// Publishes what needs no answer. Dropped while the connection is down: what comes late is of
    /// no use.
    pub async fn publish(&self, subject: String, letter: Letter) {
        if !self.is_up() {
            return;
        }
        let Letter { headers, body } = letter;
        if let Err(error) = self.client.publish_with_headers(subject, headers, body).await {
            debug!(error = chain(&error), "not published");
        }
    }

    /// Hears a subject; of a queue group, one of its members hears each message.
    ///
    /// # Errors
    /// [`DialError::Subscribe`].
    pub async fn subscribe(
        &self,
        subject: String,
        queue: Option<&str>,
    ) -> Result<async_nats::Subscriber, DialError> {
        let failed = |cause: String| DialError::Subscribe { subject: subject.clone(), cause };
        let subscriber = match queue {
            None => self.client.subscribe(subject.clone()).await,
            Some(queue) => self.client.queue_subscribe(subject.clone(), queue.to_owned()).await,
        };
        let subscriber = subscriber.map_err(|error| failed(chain(&error)))?;
        // What is published to us from now on arrives.
        self.client.flush().await.map_err(|error| failed(chain(&error)))?;
        Ok(subscriber)
    }
}

fn options(dial: &Dial, purpose: &str, ears: Ears) -> ConnectOptions {
    let member = dial.member;
    let ears = Arc::new(ears);
    let options = ConnectOptions::new()
        .name(format!("{member} {purpose}"))
        .custom_inbox_prefix(inbox(member))
        .request_timeout(Some(REQUEST_TIMEOUT))
        .connection_timeout(Duration::from_secs(5))
        .ping_interval(Duration::from_secs(5))
        // A few chunks for every client; the credits of the senders keep it from filling.
        .subscription_capacity(4096)
        .reconnect_delay_callback(|attempts| {
            LONGEST_PAUSE.min(FIRST_PAUSE * 2u32.saturating_pow(attempts.min(8) as u32))
        })
        .event_callback(move |event| {
            let ears = Arc::clone(&ears);
            async move { ears.hear(&event) }
        });
    match &dial.tls {
        None => options,
        Some(TlsFiles { ca, cert, key }) => options
            .require_tls(true)
            .add_root_certificates(ca.clone())
            .add_client_certificate(cert.clone(), key.clone()),
    }
}

fn check(client: &Client, broker: &str) -> Result<(), DialError> {
    let info = client.server_info();
    let broker = broker.to_owned();
    let mut numbers = info.version.split(['.', '-']).map(|number| number.parse().unwrap_or(0));
    let version = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    if version < OLDEST_BROKER {
        return Err(DialError::OldBroker { broker, got: info.version });
    }
    if info.max_payload < LEAST_PAYLOAD {
        return Err(DialError::SmallPayload { broker, got: info.max_payload });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;

    /// Dials somebody who says what such a broker says, and answers a ping.
    async fn dialled(version: &str, max_payload: usize) -> Result<Connection, DialError> {
        let info = format!(
            "INFO {{\"server_id\":\"a\",\"version\":\"{version}\",\"headers\":true,\"max_payload\":{max_payload}}}\r\n"
        );
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let broker = listener.local_addr().unwrap().to_string();
        tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            stream.write_all(info.as_bytes()).await.unwrap();
            let mut heard = [0; 4096];
            while stream.read(&mut heard).await.is_ok_and(|bytes| bytes > 0) {
                stream.write_all(b"PONG\r\n").await.unwrap();
            }
        });
        let (member, patience) = (MemberName::Aggregator, Duration::from_secs(10));
        Connection::dial(&Dial { broker, member, tls: None, patience }, "test").await
    }

    #[tokio::test]
    async fn a_broker_that_is_too_old_or_takes_too_little_is_named_with_what_it_needs() {
        let refused = [("2.9.25", 2 << 20, "2.12"), ("2.12.0", 1024, "max_payload 1024")];
        for (version, max_payload, told) in refused {
            let error = dialled(version, max_payload).await.err().expect("refused").to_string();
            assert!(error.contains(told), "{error}");
        }
        let fits = dialled("2.12.0", 2 << 20).await.expect("let through");
        assert_eq!(fits.max_payload(), 2 << 20);
    }
}
