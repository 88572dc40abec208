//! What a song does, told in sentences (`submitting`, `music`, `owner`), and what holds whatever happens
//! (`properties`: the laws of `law`, over histories made in `world`). Builders stand here.

mod additions;
mod dice;
mod law;
mod moving;
mod music;
mod operators;
mod owner;
mod properties;
mod providers;
mod submitting;
mod variations;
mod world;

use std::time::Duration;

use uuid::Uuid;

use super::due::{self, Due};
use super::event::{Choice, Event, NewAddition};
use super::parts::{Clip, LyricsText, Made, MusicOptions, News, SourceClip, Stage, Stem, TaskKind, Work};
use super::phase::{CallState, ManualRetries, Phase, PollRules, Rules, Run, Song, Status, Waiting};
use super::step::{Settlement, Step, Write, step, step_ranked};
use super::wish::{Alternative, Calls, Mode, Prices, Wish};
use crate::credit::Credits;
use crate::id::{CallKey, ShareToken, SongId, TaskId, UserId};
use crate::provider::failure::{Class, Failure, RetryRules};
use crate::time::Time;

pub(super) const NOON: Time = Time::from_millis(1_766_318_400_000);

pub(super) fn rules() -> Rules {
    Rules {
        deadline: minutes(10),
        grace: minutes(2),
        max_wait: minutes(60),
        own: std::collections::BTreeMap::new(),
        poll: PollRules { initial: seconds(2), max: seconds(30), multiplier: 1.5 },
        retry: RetryRules::default(),
        manual_retries: ManualRetries { max: 5, per_hour: 3 },
    }
}

pub(super) const fn seconds(n: u64) -> Duration {
    Duration::from_secs(n)
}

pub(super) const fn minutes(n: u64) -> Duration {
    Duration::from_secs(60 * n)
}

pub(super) fn task(number: u8) -> TaskId {
    TaskId(Uuid::from_u128(0x7000 + u128::from(number)))
}

pub(super) fn a_wish(mode: Mode) -> Wish {
    Wish {
        mode,
        title: None,
        prompt: Some("a waltz".into()),
        lyrics: None,
        options: MusicOptions { style_tags: vec!["waltz".into()], ..MusicOptions::default() },
        provider: "suno".into(),
        work: Work::Generate,
        parent_ids: Vec::new(),
        variants: 2,
        variations: Vec::new(),
        calls: Calls { lyrics: 1, music: 1 },
        preview: false,
        alternatives: Vec::new(),
        left: Vec::new(),
        plan: None,
        prices: Prices { lyrics: Credits::from_thousandths(100), music: Credits::from_thousandths(1000) },
        share_tokens: (0..5).map(|n| ShareToken(Uuid::from_u128(0x5000 + n))).collect(),
    }
}

/// A song as it is right after its creation at noon.
pub(super) fn created(wish: Wish) -> Song {
    let (id, user) = (SongId(Uuid::from_u128(1)), UserId::trusted("alice"));
    Song::pending(id, user, wish, serde_json::json!({}), task(1), NOON)
}

/// A song and the time: told what happens, it keeps what follows.
#[derive(Clone)]
pub(super) struct Story {
    pub(super) song: Song,
    pub(super) now: Time,
    pub(super) last: Step,
}

pub(super) fn story(wish: Wish) -> Story {
    let song = created(wish);
    Story { last: Step::nothing(&song), song, now: NOON }
}

/// One that MiniMax could make as well.
pub(super) fn with_another(mode: Mode) -> Story {
    let other = Alternative { provider: "minimax".into(), calls: Calls { lyrics: 2, music: 2 }, model: None };
    story(Wish { alternatives: vec![other], ..a_wish(mode) })
}

pub(super) fn a_song() -> Story {
    story(a_wish(Mode::Music))
}

pub(super) fn lyrics_first() -> Story {
    story(a_wish(Mode::LyricsFirst))
}

/// Whose provider makes one clip, or one text, per call.
pub(super) fn of_two_calls(mode: Mode) -> Story {
    story(Wish { calls: Calls { lyrics: 2, music: 2 }, ..a_wish(mode) })
}

impl Story {
    pub(super) fn then(mut self, event: Event) -> Self {
        self.last = step(&self.song, &event, self.now, &rules());
        self.song = self.last.song.clone();
        self
    }

    pub(super) fn later(mut self, time: Duration) -> Self {
        self.now = self.now + time;
        self
    }

    pub(super) fn key(&self, call: u8, attempt: u16) -> CallKey {
        CallKey { task: self.song.head.task, call, attempt }
    }

    pub(super) fn submitting(self, call: u8, attempt: u16) -> Self {
        let event = submitting(self.key(call, attempt), self.now);
        self.then(event)
    }

    /// Submitted and accepted at once.
    pub(super) fn ordered(self, call: u8, attempt: u16) -> Self {
        let key = self.key(call, attempt);
        let provider_task = format!("p{call}{attempt}");
        self.submitting(call, attempt).then(submitted(key, &provider_task))
    }

    /// Its provider answered at once, with the result.
    pub(super) fn answered(self, call: u8, attempt: u16, news: News) -> Self {
        let call = self.key(call, attempt);
        self.then(Event::Answered { call, news })
    }

    /// The calls that the step before wrote down as taken, with what they are called.
    pub(super) fn taken(&self) -> Vec<(CallKey, Option<&str>)> {
        let taken = self.last.writes.iter().filter_map(|write| match write {
            Write::Ref { call, provider_task, .. } => Some((*call, provider_task.as_deref())),
            Write::Reserve { .. } | Write::Settle { .. } | Write::Notify(_) => None,
        });
        taken.collect()
    }

    pub(super) fn heard(self, call: u8, attempt: u16, news: News) -> Self {
        let call = self.key(call, attempt);
        self.then(Event::News { call, provider_task: None, news })
    }

    /// Nobody knows whether the order arrived.
    pub(super) fn ambiguous(self, attempt: u16) -> Self {
        let call = self.key(0, attempt);
        let failure = Failure::new(Class::Network, "reset").maybe_arrived();
        self.submitting(0, attempt).then(Event::SubmitFailed { call, failure })
    }

    pub(super) fn refused(self, call: u8, attempt: u16, class: Class) -> Self {
        let call = self.key(call, attempt);
        self.then(Event::SubmitFailed { call, failure: Failure::new(class, "no") })
    }

    pub(super) fn wake(self) -> Self {
        self.then(Event::Wake)
    }

    /// Lets time pass until the next thing is due.
    pub(super) fn until_due(mut self) -> Self {
        if let Some((at, _)) = self.due() {
            self.now = self.now.max(at);
        }
        self
    }

    pub(super) fn retried(self, number: u8) -> Self {
        self.then(Event::Retried { task: task(number), prompt: None, lyrics: None, unable: Vec::new() })
    }

    pub(super) fn chosen(self, number: u8) -> Self {
        self.then(Event::Chosen { choice: Choice::Variant(0), task: task(number), unable: Vec::new() })
    }

    pub(super) fn due(&self) -> Option<(Time, Due)> {
        due::due(&self.song, |_| self.now, &rules())
    }

    pub(super) fn run(&self) -> &Run {
        self.song.phase.run().expect("the song is at work")
    }

    pub(super) fn state(&self, call: usize) -> &CallState {
        &self.run().calls[call].state
    }

    pub(super) fn status(&self) -> Status {
        self.song.status()
    }

    /// The step before changed and wrote nothing.
    pub(super) fn unmoved_by(&self, event: Event) {
        let step = step(&self.song, &event, self.now, &rules());
        assert!(step.is_nothing(&self.song), "{event:?} led to {step:?}");
        assert_eq!(step.kind, None);
    }

    pub(super) fn settled(&self) -> Option<(Settlement, i64)> {
        self.last.writes.iter().find_map(|write| match write {
            Write::Settle { settlement, amount, .. } => Some((*settlement, amount.thousandths())),
            Write::Reserve { .. } | Write::Notify(_) | Write::Ref { .. } => None,
        })
    }
}

/// A call that starts within 5 s and lasts at most 30 s.
pub(super) fn submitting(call: CallKey, now: Time) -> Event {
    Event::Submitting {
        call,
        not_after: now + seconds(5),
        settled_by: now + seconds(35),
        takes: Some(minutes(1)),
        synchronous: false,
    }
}

pub(super) fn submitted(call: CallKey, provider_task: &str) -> Event {
    Event::Submitted { call, provider_task: provider_task.into(), clip_ids: Vec::new() }
}

pub(super) fn limited(call: CallKey, by: Waiting) -> Event {
    Event::Limited { call, by, queue_position: Some(3), open: Vec::new() }
}

/// A request for something beside the song.
pub(super) fn asked(number: u8, kind: TaskKind, variant_number: i16) -> Event {
    let of = SourceClip {
        song: SongId(Uuid::from_u128(1)),
        variant_number,
        provider: "suno".into(),
        provider_task: Some("p".into()),
        clip_id: Some("a".into()),
        audio_url: None,
        duration_ms: None,
        model: None,
        title: None,
        lyrics: None,
        style_tags: Vec::new(),
        instrumental: false,
    };
    let work = match kind {
        TaskKind::Stems => Work::Stems { of },
        TaskKind::Persona => Work::Persona { of, name: "Ada".into(), description: "calm".into() },
        _ => Work::Video { of },
    };
    let price = Credits::from_thousandths(if kind == TaskKind::Stems { 500 } else { 0 });
    let addition = NewAddition { task: task(number), provider: "suno".into(), work, price };
    Event::Asked { addition: Box::new(addition) }
}

/// What comes of an addition.
pub(super) fn made(kind: TaskKind) -> Made {
    match kind {
        TaskKind::Stems => {
            let stem = Stem { name: "vocals".into(), url: "https://files/v.mp3".into() };
            Made::Stems { stems: vec![stem] }
        }
        TaskKind::Persona => Made::Persona { persona_id: "ada".into(), name: None, description: None },
        _ => Made::Video { video_url: "https://files/v.mp4".into() },
    }
}

pub(super) fn clip(id: &str) -> Clip {
    Clip {
        clip_id: Some(id.into()),
        audio_url: Some(format!("https://files/{id}.mp3")),
        fallback_url: Some(format!("https://cdn/{id}.mp3")),
        ..Clip::default()
    }
}

/// A clip that only has its id so far, and where it will be.
pub(super) fn named_clip(id: &str) -> Clip {
    Clip { audio_url: None, ..clip(id) }
}

pub(super) fn clips(stage: Stage, ids: &[&str]) -> News {
    News::Clips(stage, ids.iter().map(|id| clip(id)).collect())
}

pub(super) fn finished() -> News {
    clips(Stage::Complete, &["a", "b"])
}

pub(super) fn texts(texts: &[&str]) -> News {
    News::Lyrics(texts.iter().map(|text| LyricsText { title: None, text: (*text).into() }).collect())
}

pub(super) fn gave_up(class: Class) -> News {
    News::Failed(Failure::new(class, "sorry"))
}
