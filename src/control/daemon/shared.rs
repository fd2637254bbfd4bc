//! What the daemon shows while it works: its answers to whoever asks by the sockets.

use std::cell::{Cell, RefCell};
use std::future::pending;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use tokio::sync::{mpsc, oneshot};

use crate::config::Config;
use crate::control::in_force::InForce;
use crate::control::log;
use crate::control::metrics_server::MetricsServer;
use crate::control::reload::{self, Answer, Wish};
use crate::control::status::Status;
use crate::control::status_server::{Answers, StatusServer};
use crate::control::uapi::{ReadOnly, UapiServer};
use crate::data::Plane;
use crate::tunnel::Table;

/// What the status reads while the keeper works. Cells are never borrowed across an await.
pub(super) struct Shared {
    pub(super) plane: Plane,
    pub(super) table: Arc<ArcSwap<Table>>,
    pub(super) level: log::Level,
    /// To the keeper, who reloads.
    pub(super) wishes: mpsc::Sender<reload::Request>,
    pub(super) server: StatusServer,
    pub(super) metrics: Option<MetricsServer>,
    pub(super) uapi: Option<UapiServer>,
    pub(super) in_force: RefCell<InForce>,
    pub(super) clock_behind: Cell<Duration>,
    pub(super) warnings: RefCell<Vec<String>>,
}

impl Answers for Shared {
    fn status(&self) -> Status {
        let now = Instant::now();
        self.in_force.borrow_mut().tunnels.look(now);
        let InForce { tunnels, facts, .. } = &*self.in_force.borrow();
        let metrics = self.metrics.as_ref().and_then(MetricsServer::problem);
        let warnings = tunnels.warnings(now).chain(self.warnings.borrow().iter().cloned()).chain(metrics).collect();
        facts.status(&self.plane, tunnels, self.clock_behind.get(), warnings)
    }

    fn log_level(&self) -> String {
        self.level.text()
    }

    fn set_log_level(&self, level: &str) -> anyhow::Result<()> {
        self.level.set(level)
    }

    async fn reload(&self, wish: Wish) -> Option<Answer> {
        let (asker, answer) = oneshot::channel();
        self.wishes.send((wish, asker)).await.ok()?;
        answer.await.ok()
    }
}

impl Shared {
    pub(super) fn config(&self) -> Rc<Config> {
        self.in_force.borrow().config.clone()
    }

    /// Answers Prometheus, for ever.
    pub(super) async fn serve_metrics(&self) {
        match &self.metrics {
            Some(server) => server.serve(|| self.status()).await,
            None => pending().await,
        }
    }

    /// Answers `wg show`, for ever.
    pub(super) async fn serve_wg(&self) {
        match &self.uapi {
            Some(server) => server.serve(&ReadOnly(&self.in_force)).await,
            None => pending().await,
        }
    }
}
