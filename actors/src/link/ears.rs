//! What the broker and the client library say of a connection besides answers.

use std::sync::Arc;

use async_nats::{Event, ServerError};
use tokio::sync::{broadcast, watch};
use tokio::time::Instant;
use tracing::{debug, info, warn};

use crate::registry::MemberName;

/// Takes in what the library says of a connection.
pub(super) struct Ears {
    pub(super) member: MemberName,
    pub(super) down: watch::Sender<u64>,
    pub(super) up: watch::Sender<Instant>,
    pub(super) forbidden: broadcast::Sender<Arc<str>>,
}

impl Ears {
    pub(super) fn hear(&self, event: &Event) {
        let member = self.member;
        match event {
            Event::Disconnected | Event::Closed => {
                warn!(%member, "the connection to the broker is down");
                self.down.send_modify(|downs| *downs += 1);
            }
            Event::Connected => {
                info!(%member, "connected to the broker");
                self.up.send_replace(Instant::now());
            }
            Event::ServerError(ServerError::Other(text)) => {
                warn!(%member, text, "the broker refused something");
                if let Some(subject) = denied_subject(text) {
                    // Nobody waits for it any more.
                    let _ = self.forbidden.send(subject.into());
                }
            }
            other => debug!(%member, event = %other, "the broker said"),
        }
    }
}

/// The subject in `Permissions Violation for Publish to "SUBJECT"`: a refused publish returns Ok, the word
/// comes later and on its own.
fn denied_subject(text: &str) -> Option<&str> {
    let lower = text.to_ascii_lowercase();
    if !lower.starts_with("permissions violation for publish") {
        return None;
    }
    let (_, rest) = text.split_once('"')?;
    rest.split_once('"').map(|(subject, _)| subject)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_subject_of_a_refused_publish_is_found_in_what_the_broker_says() {
        let subject = "fell.r.agg.call.client-4";
        let text = format!("Permissions Violation for Publish to \"{subject}\"");
        assert_eq!(denied_subject(&text), Some(subject));
        assert_eq!(denied_subject("Permissions Violation for Subscription to \"a\""), None);
        assert_eq!(denied_subject("something else"), None);
    }
}
