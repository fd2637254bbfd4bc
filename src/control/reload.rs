//! A reload before anything is touched: the file and the keys are read again and compared with what is in force; and
//! what the daemon answers to who asked for it.

use std::path::Path;

use serde::{Deserialize, Serialize};
use tokio::sync::oneshot;

use super::in_force::InForce;
use super::keys::Reread;
use crate::config::{self, Config, Difference};

/// What somebody wants to know or to be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wish {
    /// What a reload would do.
    Compare,
    /// To do it.
    Reload,
}

/// A wish, and who waits for the answer.
pub type Request = (Wish, oneshot::Sender<Answer>);

/// What came of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answer {
    /// In a word.
    pub outcome: Outcome,
    /// The difference, a line each; as far as the file could be read.
    pub changes: Vec<String>,
    /// What else the admin should know, one sentence each.
    pub notes: Vec<String>,
    /// Why it was refused, with the remedy.
    pub why: Option<String>,
}

/// A reload is done whole or not at all.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// The file is in force now.
    Applied,
    /// It was already.
    Unchanged,
    /// It would be applied.
    Different,
    /// Refused: the file is wrong.
    WrongFile,
    /// Refused: a running daemon cannot take over all of it.
    NeedsRestart,
    /// Refused, or failed: nothing has changed.
    Failed,
}

impl Outcome {
    /// Whether the file is in force, or could be.
    #[must_use]
    pub const fn is_fine(self) -> bool {
        matches!(self, Self::Applied | Self::Unchanged | Self::Different)
    }
}

impl Answer {
    pub(super) fn new(outcome: Outcome, plan: &Plan) -> Self {
        Self { outcome, changes: plan.changes.clone(), notes: plan.keys.notes.clone(), why: None }
    }

    pub(super) fn because(mut self, why: impl ToString) -> Self {
        self.why = Some(why.to_string());
        self
    }

    fn refused(outcome: Outcome, why: impl ToString) -> Self {
        Self { outcome, changes: Vec::new(), notes: Vec::new(), why: None }.because(why)
    }
}

/// What is to be in force.
pub(super) struct Plan {
    pub(super) config: Config,
    pub(super) keys: Reread,
    /// The difference, keys included.
    pub(super) changes: Vec<String>,
}

/// Reads `file` and its keys again.
///
/// # Errors
/// The answer, if it has to be refused.
pub(super) fn plan(file: &Path, in_force: &InForce) -> Result<Plan, Answer> {
    let config = config::load(file).map_err(|problems| Answer::refused(Outcome::WrongFile, problems))?;
    let keys = Reread::of(&config, in_force).map_err(|error| Answer::refused(Outcome::Failed, format!("{error:#}")))?;
    let Difference { mut changes, needs_restart } = Difference::between(&in_force.config, &config);
    changes.extend(keys.changes.iter().cloned());
    let plan = Plan { config, keys, changes };
    if needs_restart.is_empty() {
        return Ok(plan);
    }
    let name = &plan.config.interface.name;
    let why = format!(
        "nothing was changed, because this needs a restart (systemctl restart linkspan@{name}):\n{}",
        needs_restart.join("\n")
    );
    Err(Answer::new(Outcome::NeedsRestart, &plan).because(why))
}
