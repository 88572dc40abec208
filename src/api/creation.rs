//! Creating a song, for whatever route asks for it: the flood's dam, the terms of who asks, the journal, and what the
//! client is told of it, headers of CRED-3 included.
//!
//! Not here: what a body says (`wishes`), what the limits decide (`store::births`).

use std::sync::Arc;
use std::time::Duration;

use actix_web::web;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::flood::Flood;
use super::problem::{Kind, Problem, headers};
use super::who::Who;
use super::{Api, songs};
use crate::auth::{Identity, Role};
use crate::credit::Credits;
use crate::credit::plan::{Allowance, Plan, Plans, Standing, next_midnight};
use crate::song::directory::Born;
use crate::song::phase::Song;
use crate::song::view::changes;
use crate::store::births::{Birth, Terms};
use crate::store::journal::{Committed, Entry};
use crate::store::row::NewSong;
use crate::time::Time;

/// How long somebody with too many songs under way is told to wait: about as long as a song takes.
const BUSY_PAUSE: Duration = Duration::from_secs(30);

/// What a user is given, and how fast users may ask.
pub struct Creation {
    plans: Arc<Plans>,
    signup_grant: Credits,
    guest_grant: Credits,
    /// One for each plan: before what creates, and around all that changes anything.
    inner: [Flood; 4],
    outer: [Flood; 4],
    /// For songs that are being created.
    room: Arc<Semaphore>,
}

/// A song that is there: new (202) or as it was asked for before (200).
pub(super) struct Made {
    pub(super) replayed: bool,
    pub(super) song: Song,
    pub(super) allowance: Allowance,
}

/// A song to be created.
pub(super) struct Asked {
    pub(super) song: Song,
    pub(super) content_hash: [u8; 32],
    pub(super) key: Option<String>,
    pub(super) refuse_when_busy: bool,
}

impl Creation {
    /// `at_once` songs may be on their way to the database and from there to their providers; whoever comes beyond them is
    /// refused before anything is done.
    pub fn new(plans: Plans, signup_grant: Credits, guest_grant: Credits, at_once: usize) -> Self {
        let inner = Plan::ALL.map(|plan| Flood::before(plans.of(plan).per_minute));
        let outer = Plan::ALL.map(|plan| Flood::around(plans.of(plan).per_minute));
        Self {
            plans: Arc::new(plans),
            signup_grant,
            guest_grant,
            inner,
            outer,
            room: Arc::new(Semaphore::new(at_once)),
        }
    }

    pub fn plans(&self) -> &Plans {
        &self.plans
    }

    /// What this user starts with.
    pub fn start_of(&self, user: &str) -> Credits {
        if user.starts_with(super::guests::PREFIX) { self.guest_grant } else { self.signup_grant }
    }

    pub fn terms(&self, who: &Identity, refuse_when_busy: bool) -> Terms {
        let grant = self.start_of(who.user.as_str());
        Terms { plans: self.plans.clone(), plan: plan(who), grant, refuse_when_busy }
    }

    /// Stops floods of creations before they reach the database.
    pub(super) fn dam(&self, who: &Identity, now: Time) -> Result<(), Problem> {
        let plan = self.generous_plan(who);
        // What a client is to go by is its plan, of which the dam lets pass a few times as much.
        pass(&self.inner[plan as usize], self.plans.of(plan).per_minute, who, now)
    }

    /// The same before all that changes anything. Not for operators, who put back at once what an outage left.
    pub(super) fn outer_dam(&self, who: &Identity, now: Time) -> Result<(), Problem> {
        if who.role == Role::Service {
            return Ok(());
        }
        let dam = &self.outer[self.generous_plan(who) as usize];
        pass(dam, dam.limit(), who, now)
    }

    /// Whose token names no plan may have the most generous one.
    fn generous_plan(&self, who: &Identity) -> Plan {
        let per_minute = |plan: &Plan| self.plans.of(*plan).per_minute;
        let most_generous = || Plan::ALL.into_iter().max_by_key(per_minute).unwrap_or(Plan::Free);
        plan(who).unwrap_or_else(most_generous)
    }
}

/// The plan that the token names, if it names one there is.
fn plan(who: &Identity) -> Option<Plan> {
    who.plan.as_deref().and_then(Plan::parse)
}

/// Makes a song durable and paid, and starts it; or says why not.
pub(super) async fn create(api: &web::Data<Api>, who: &Who, asked: Asked) -> Result<Made, Problem> {
    let Asked { song, content_hash, key, refuse_when_busy } = asked;
    let Ok(place) = api.creation.room.clone().try_acquire_owned() else {
        metrics::counter!("songflight_creates_refused_total").increment(1);
        return Err(Problem::unavailable());
    };
    let (now, preview) = (song.created_at, song.wish.preview);
    let set = changes(None, &song, &api.world.rules);
    let answer = song.clone();
    let terms = api.creation.terms(&who.0, refuse_when_busy);
    let new = NewSong { song, idempotency_key: key, content_hash, terms, set };
    let (birth, standing) = bring_to_life(api, new, place).await?;
    let allowance = api.creation.plans.allowance(&standing, preview, now);
    match birth {
        Birth::Created { .. } => Ok(Made { replayed: false, song: answer, allowance }),
        Birth::Replay { song } => {
            Ok(Made { replayed: true, song: songs::own(api, who, song).await?, allowance })
        }
        refused => Err(refusal(refused, &standing, now).with_headers(headers(&allowance))),
    }
}

/// Makes a song durable and starts it, as a task of its own: this request ends early when its client hangs
/// up, and a song that is paid for must be made all the same (SONG-1).
async fn bring_to_life(
    api: &web::Data<Api>,
    new: NewSong,
    place: OwnedSemaphorePermit,
) -> Result<(Birth, Standing), Problem> {
    let api = api.clone();
    let living = actix_web::rt::spawn(async move {
        let mut song = new.song.clone();
        let committed = api.world.journal.commit(Entry::Create(Box::new(new))).await?;
        let Committed::Birth { birth, standing } = committed else { return Err(Problem::unavailable()) };
        if matches!(birth, Birth::Created { .. }) {
            metrics::counter!("songflight_songs_created_total").increment(1);
            Arc::make_mut(&mut song.wish).plan = Some(standing.plan.as_str().to_owned());
            api.directories.of(song.id).do_send(Born { song: Box::new(song), beginning: Some(place) });
        }
        Ok((birth, standing))
    });
    living.await.unwrap_or_else(|_| Err(Problem::unavailable()))
}

fn refusal(birth: Birth, standing: &Standing, now: Time) -> Problem {
    match birth {
        Birth::KeyMismatch => {
            Problem::new(Kind::IdempotencyMismatch, "This Idempotency-Key came with other content before.")
        }
        Birth::Claimed => Problem::claimed(),
        Birth::Short { required, available } => Problem::short(required, available),
        Birth::TooFast => {
            let detail = "Your plan allows no further song in this minute.";
            limited(Kind::RateLimited, detail, standing.next_at.since(now))
        }
        Birth::DayUsedUp => {
            let detail = "Your plan allows no further song today; days turn at 00:00 UTC.";
            limited(Kind::DailyLimit, detail, next_midnight(now).since(now))
        }
        Birth::PreviewsUsedUp => {
            let detail = "There are no further previews today; days turn at 00:00 UTC.";
            limited(Kind::DailyLimit, detail, next_midnight(now).since(now))
        }
        Birth::TooManyAtOnce => {
            let detail = "As many songs as your plan allows are under way; or let it wait: on_busy \"wait\".";
            limited(Kind::TooManyAtOnce, detail, BUSY_PAUSE)
        }
        Birth::KeyGone | Birth::Created { .. } | Birth::Replay { .. } => Problem::not_found(),
    }
}

/// Through a dam, or told when it lets one pass again, and when all that it holds.
fn pass(dam: &Flood, limit: u32, who: &Identity, now: Time) -> Result<(), Problem> {
    dam.pass(who.user.as_str()).map_err(|wait| {
        metrics::counter!("songflight_floods_stopped_total").increment(1);
        let all_again = Some(now + dam.full_after(wait));
        limited(Kind::RateLimited, "Far too many requests.", wait).used_up(limit, all_again)
    })
}

fn limited(kind: Kind, detail: &str, wait: Duration) -> Problem {
    Problem::new(kind, detail).after(wait)
}
