//! Members that an operator sends away: they finish what the round needs of them, and their nodes end in order.

use std::sync::Arc;

use actix::Handler;
use fellrec::ids::Round;
use tracing::info;

use super::lookout::{Heard, Lookout};
use super::{Crew, Supervisor};
use crate::messages::Drain;
use crate::registry::MemberName;

/// A member that is to leave.
#[derive(Clone, Copy, Debug)]
pub struct Leaving {
    /// Its life: started again, it stays.
    life: u64,
    /// Round that was committed when it was told to take on nothing new.
    told_at: Option<Round>,
}

impl Supervisor {
    /// Whether a member takes on nothing new.
    pub(super) fn is_leaving(&self, member: MemberName) -> bool {
        self.leaving.contains_key(&member)
    }

    /// What a member that is to leave is told at its heartbeat; `None` for all others.
    pub(super) fn farewell(
        &mut self,
        member: MemberName,
        life: u64,
        lookout: &Lookout,
    ) -> Option<Heard> {
        let leaving = self.leaving.get_mut(&member)?;
        if leaving.life != life {
            // Its node was started again: it stays.
            self.leaving.remove(&member);
            return None;
        }
        let committed = self.machine.state().committed;
        let told_at = *leaving.told_at.get_or_insert(committed);
        let needed = match member {
            MemberName::Client(client) => self.machine.needs(client),
            // The sessions of the round that was open then are over when the next one trains.
            _ => committed <= told_at || !self.machine.is_training(),
        };
        if needed {
            return Some(Heard::Drain);
        }
        info!(%member, "leaves");
        lookout.forget(member);
        Some(Heard::Leave)
    }

    fn drain(&mut self, member: MemberName) -> Result<(), String> {
        let Crew::Apart { lookout, .. } = &self.crew else {
            return Err("members of this process end with it".to_owned());
        };
        let lookout = Arc::clone(lookout);
        match member {
            MemberName::Client(_) => {}
            MemberName::Shard(_) => {
                let stays = |other: &MemberName| !self.is_leaving(*other);
                if !lookout.is_replaceable(member, stays) {
                    return Err(format!("{member} is the only replica of its stage that is here"));
                }
            }
            MemberName::Aggregator | MemberName::Supervisor | MemberName::Operator => {
                return Err(format!(
                    "there is one {member}: stop its node and start it again, it goes on from the last commit"
                ));
            }
        }
        let Some(life) = lookout.life_of(member) else {
            let here: Vec<String> = lookout.present().keys().map(MemberName::to_string).collect();
            return Err(format!("{member} is not here, expected one of {}", here.join(", ")));
        };
        info!(%member, "is to leave");
        self.leaving.insert(member, Leaving { life, told_at: None });
        Ok(())
    }
}

impl Handler<Drain> for Supervisor {
    type Result = Result<(), String>;

    fn handle(&mut self, message: Drain, _ctx: &mut Self::Context) -> Self::Result {
        self.drain(message.member)
    }
}
