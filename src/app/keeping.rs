//! What goes on in the background for as long as the program runs, each kept going whatever happens to it.
//!
//! Not here: what each of them does, but for two that are a few lines.

use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use deadpool_postgres::{Object, Pool};
use metrics_exporter_prometheus::PrometheusHandle;
use tokio::sync::oneshot;

use super::settings::sweeping;
use crate::cluster::Node;
use crate::config::Config;
use crate::ops::forgetting::keep_forgetting;
use crate::ops::{auditor, supervise};
use crate::song::actor::World;
use crate::song::directory::Directories;
use crate::song::{recovery, sweeper};
use crate::store;
use crate::store::server::Server;

/// Partitions are made and dropped this often.
const TURN_DAYS_EVERY: Duration = Duration::from_secs(3600);
const TURNED_WITHIN: Duration = Duration::from_secs(30);

/// A connection of its own: readers that take all others must not cost the lease.
pub(super) fn lease(node: &Node, postgres: &Server) -> Result<Arc<Pool>, String> {
    let lifeline = Arc::new(store::pool(postgres, 1)?);
    let (beating, beats_by) = (node.clone(), lifeline.clone());
    supervise::keep("the lease", move || beating.clone().keep_alive(beats_by.clone()));
    Ok(lifeline)
}

/// What goes with time.
pub(super) fn house(config: &Config, pool: &Pool) {
    let keep_days = i32::try_from(config.realtime.events_keep_days).unwrap_or(i32::MAX - 1);
    let days = pool.clone();
    supervise::keep("the turn of days", move || turn_days(days.clone(), keep_days));
    let (letters, keep_letters) = (pool.clone(), config.ops.dead_letters_keep_days);
    supervise::keep("the end of old letters", move || keep_forgetting(letters.clone(), keep_letters));
}

pub(super) fn audits(config: &Config, postgres: &Server, world: &World) {
    let (server, every) = (postgres.clone(), config.ops.audit_every);
    let patience = sweeper::patience(world, config.ops.stuck_after);
    if !every.is_zero() {
        supervise::keep("the audit", move || auditor::keep_auditing(server.clone(), every, patience));
    }
}

/// The nets under all songs. Resolves once what ran here before is in hand, or could not be had.
pub(super) fn songs(config: &Config, world: &Arc<World>, directories: &Directories) -> oneshot::Receiver<()> {
    let (resumed, in_hand) = oneshot::channel();
    let resumed = Rc::new(Cell::new(Some(resumed)));
    let of = (world.clone(), directories.clone());
    supervise::keep("the take-over", move || {
        let resumed = resumed.clone();
        recovery::keep_taking_over(of.0.clone(), of.1.clone(), move || {
            resumed.take().map(|resumed| resumed.send(()));
        })
    });
    let (of, settings) = ((world.clone(), directories.clone()), sweeping(config));
    supervise::keep("the sweeper", move || sweeper::keep_sweeping(of.0.clone(), of.1.clone(), settings));
    in_hand
}

/// Makes the coming days' partitions and drops those that are no longer kept.
async fn turn_days(pool: Pool, keep_days: i32) {
    loop {
        let turn = async |client: &mut Object| {
            client.batch_execute("select make_days()").await?;
            // A day more than promised: the oldest promised day must be whole.
            client.query_one("select drop_days($1)", &[&(keep_days + 1)]).await?;
            Ok(())
        };
        let pause = match store::ask_within(&pool, TURNED_WITHIN, turn).await {
            Ok(()) => TURN_DAYS_EVERY,
            Err(error) => {
                tracing::warn!(%error, "the days' partitions could not be turned; trying again in a minute");
                TURN_DAYS_EVERY / 60
            }
        };
        tokio::time::sleep(pause).await;
    }
}

pub(super) fn metrics(metrics: &PrometheusHandle) {
    let metrics = metrics.clone();
    supervise::keep("the upkeep of metrics", move || keep_up(metrics.clone()));
}

/// Histograms keep every sample until somebody asks or this is done.
async fn keep_up(metrics: PrometheusHandle) {
    loop {
        tokio::time::sleep(Duration::from_secs(5)).await;
        metrics.run_upkeep();
    }
}
