//! A song that lives through the same few steps as every other, to be written by the journal.

use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use songflight::credit::Credits;
use songflight::credit::plan::{Limits, Plans};
use songflight::id::{CallKey, SongId, TaskId, UserId, fresh};
use songflight::provider::failure::RetryRules;
use songflight::song::event::Event;
use songflight::song::parts::{Clip, News, Stage};
use songflight::song::phase::{ManualRetries, PollRules, Rules, Song};
use songflight::song::step::step;
use songflight::song::view::changes;
use songflight::store::births::Terms;
use songflight::store::claims::Claim;
use songflight::store::row::{NewSong, StepRow};
use songflight::time::Clock;

#[derive(Clone)]
pub struct Life {
    pub song: Song,
    /// Of its row, once all steps so far were written.
    pub version: i64,
    key: Option<String>,
}

impl Life {
    /// Steps from its creation to its end.
    pub const ACTS: usize = 4;

    pub fn new(user: &str) -> Self {
        let now = Clock.now();
        let wish = json!({
            "mode": "music", "title": null, "prompt": "a waltz", "lyrics": null, "provider": "suno",
            "model": null, "vocal_gender": null, "style_weight": null, "weirdness": null, "audio_weight": null,
            "reference_audio_url": null, "persona_id": null, "variants": 2, "preview": false,
            "calls": {"lyrics": 1, "generate": 1}, "prices": {"lyrics": 100, "generate": 1_000},
            "share_tokens": [fresh(), fresh()],
        });
        let wish = serde_json::from_value(wish).expect("a wish");
        let (id, user) = (SongId(fresh()), UserId::trusted(user));
        let song = Song::pending(id, user, wish, json!({}), TaskId(fresh()), now);
        let key = Some(song.id.to_string());
        Self { song, version: 1, key }
    }

    pub fn without_key(self) -> Self {
        Self { key: None, ..self }
    }

    pub fn birth(&self) -> NewSong {
        NewSong {
            song: self.song.clone(),
            idempotency_key: self.key.clone(),
            content_hash: self.content(),
            terms: terms(),
            set: changes(None, &self.song, &rules()),
        }
    }

    /// Every song is another one.
    fn content(&self) -> [u8; 32] {
        let mut content = [7; 32];
        content[..16].copy_from_slice(self.song.id.0.as_bytes());
        content
    }

    /// Moves to another owner.
    pub fn claimed(&mut self, by: &str) -> Claim {
        let event = Event::Claimed { by: UserId::trusted(by), plan: "free" };
        let next = step(&self.song, &event, Clock.now(), &rules());
        let claim = Claim::new(&self.song, self.version, &next.song, &rules());
        self.song = next.song;
        self.version += 1;
        claim
    }

    /// Lives through its next step: submitted, taken, a first clip, all clips.
    pub fn next(&mut self, act: usize) -> StepRow {
        let call = CallKey { task: self.song.head.task, call: 0, attempt: 0 };
        let now = Clock.now();
        let clip = |number: usize| Clip {
            clip_id: Some(format!("{}-{number}", self.song.id)),
            stream_url: Some("https://cdn.example.com/stream".into()),
            audio_url: Some("https://cdn.example.com/audio".into()),
            ..Clip::default()
        };
        let news = |news| Event::News { call, provider_task: None, news };
        let event = match act {
            0 => Event::Submitting {
                call,
                not_after: now + Duration::from_secs(5),
                settled_by: now + Duration::from_secs(35),
                takes: None,
                synchronous: false,
            },
            1 => {
                let provider_task = self.song.head.task.to_string();
                Event::Submitted { call, provider_task, clip_ids: Vec::new() }
            }
            2 => news(News::Clips(Stage::First, vec![clip(1)])),
            _ => news(News::Clips(Stage::Complete, vec![clip(1), clip(2)])),
        };
        self.told(&event)
    }

    /// Is told of anything that changes it.
    pub fn told(&mut self, event: &Event) -> StepRow {
        let now = Clock.now();
        let next = step(&self.song, event, now, &rules());
        assert!(!next.is_nothing(&self.song), "{event:?}");
        let row = StepRow::new(&self.song, self.version, &next, &rules(), now);
        self.song = next.song;
        self.version += 1;
        row
    }
}

/// Limits that are in nobody's way.
fn terms() -> Terms {
    let limits = Limits { per_minute: 60_000, per_day: None, concurrent: 1_000 };
    let plans = Plans { guest: limits, free: limits, pro: limits, premium: limits, previews_per_day: 3 };
    let grant = Credits::from_thousandths(100_000_000);
    Terms { plans: Arc::new(plans), plan: None, grant, refuse_when_busy: false }
}

fn rules() -> Rules {
    let a_while = Duration::from_secs(60);
    Rules {
        deadline: a_while,
        grace: a_while,
        max_wait: a_while,
        own: std::collections::BTreeMap::new(),
        poll: PollRules { initial: a_while, max: a_while, multiplier: 2.0 },
        retry: RetryRules::default(),
        manual_retries: ManualRetries { max: 5, per_hour: 2 },
    }
}
