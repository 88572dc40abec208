//! How this program leaves (OPS-9): in an order in which nothing is lost, with an end to every wait.
//!
//! Not here: when it is told to (`cli::serve`), what the next owner finds (`song::due`).

use std::time::Duration;

use actix_web::body::MessageBody;
use actix_web::dev::{ServiceRequest, ServiceResponse};
use actix_web::middleware::Next;
use actix_web::{ResponseError, web};

use super::Running;
use super::folder::Folder;
use crate::api::Api;
use crate::api::problem::Problem;

/// How long callers may be spread over when this node stops.
const DRAIN: Duration = Duration::from_secs(5);
/// How long what waits or is being written is waited for, when this node stops. What is not written by then never will be:
/// to leave waits for a commit under way, and fences all later ones; the next owner finds such songs as they were.
const FLUSH: Duration = Duration::from_secs(5);
/// Each connection to the database takes its leave by a task of its own. One that has not when a private Postgres stops
/// is ended by it, and would be logged as if something had crashed.
const GOODBYES: Duration = Duration::from_millis(50);

impl Running {
    /// Stops so that nothing is lost: nothing new is taken and no call begun, sockets are told to come back, answers
    /// are waited for, requests that were taken are finished, what waits is written, the lease is given back, and what
    /// was started is stopped (OPS-9). Each wait has an end.
    pub async fn stop(self) {
        self.node.lease.drain();
        let calls = || self.world.calls.load(std::sync::atomic::Ordering::SeqCst);
        let patience = self.stop_within.min(self.world.longest_call() + Duration::from_secs(1));
        tokio::join!(self.realtime.close_all(4001, DRAIN), self.until(patience, || calls() == 0));
        if calls() > 0 {
            tracing::warn!(
                calls = calls(),
                "submissions are still under way; the next owner finds out about them"
            );
        }
        self.server.stop(true).await;
        self.folder.iter().for_each(Folder::serves_no_more);
        self.until(FLUSH, || self.world.journal.is_idle()).await;
        if self.faulty {
            // As after a crash: a song that ends the program each time is to be counted (`store::nodes::take_over`).
            self.node.abandon();
        } else {
            self.node.leave(&self.pool).await;
        }
        self.world.journal.close();
        self.lifeline.close();
        self.pool.close();
        if let Some(simulator) = self.simulator {
            simulator.stop().await;
        }
        if let Some(postgres) = self.postgres {
            tokio::time::sleep(GOODBYES).await;
            postgres.stop().await;
        }
    }

    async fn until(&self, patience: Duration, reached: impl Fn() -> bool) {
        let asked = self.world.clock.monotonic();
        while !reached() && self.world.clock.since(asked) < patience {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

/// Who leaves takes nothing new; what was taken is finished (OPS-9). Reads are answered until the end.
pub(super) async fn only_reads(
    request: ServiceRequest,
    next: Next<impl MessageBody + 'static>,
) -> Result<ServiceResponse<impl MessageBody + 'static>, actix_web::Error> {
    let leaving = request.app_data::<web::Data<Api>>().is_some_and(|api| api.world.lease.is_draining());
    if leaving && !request.method().is_safe() {
        let answer = Problem::leaving().error_response();
        return Ok(request.into_response(answer).map_into_right_body());
    }
    Ok(next.call(request).await?.map_into_left_body())
}
