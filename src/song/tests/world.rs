//! A small shell around one song, on virtual time: it does what is due as the actor does it, with a
//! provider that answers, refuses, loses and repeats, an owner who commands, and a machine that crashes.

use super::dice::Dice;
use super::law::{Law, hold};
use super::*;
use crate::song::step::Act;
use crate::song::wish::{Alternative, Variation};

/// Steps with everything that can go wrong, then as many as it takes without.
const TROUBLED: u32 = 24;
const QUIET_MAX: u32 = 1500;

#[derive(Clone, Copy)]
struct Faults {
    crash: bool,
    lose: bool,
    refuse: bool,
    limit: bool,
    owner: bool,
    odd: bool,
}

/// What a provider has in work.
struct Order {
    key: CallKey,
    name: String,
    /// When the words, the first clip, the end is there.
    stages: [Time; 3],
    fails: bool,
}

pub(super) struct World<'a> {
    dice: &'a mut Dice,
    law: Law,
    rules: Rules,
    song: Song,
    now: Time,
    polled: Vec<(CallKey, Time)>,
    /// Events on their way: callbacks, which survive a crash, and answers to our own calls, which do not.
    coming: Vec<(Time, bool, Event)>,
    orders: Vec<Order>,
    slot_at: Time,
    faults: Faults,
    calls_back: bool,
    names: bool,
    tasks: u8,
}

const CLASSES: [Class; 7] = [
    Class::ProviderError,
    Class::Network,
    Class::RateLimited,
    Class::Moderation,
    Class::InvalidInput,
    Class::Unknown,
    Class::Timeout,
];

impl<'a> World<'a> {
    pub(super) fn new(dice: &'a mut Dice, mode: Mode) -> Self {
        let mut wish = a_wish(mode);
        let faults = Faults {
            crash: dice.percent(50),
            lose: dice.percent(50),
            refuse: dice.percent(50),
            limit: dice.percent(30),
            owner: dice.percent(50),
            odd: dice.percent(50),
        };
        wish.calls = Calls { lyrics: 1 + dice.below(2) as u8, music: 1 + dice.below(2) as u8 };
        wish.variants = dice.pick(&[2, 1, 3]);
        wish.alternatives = others(dice);
        if dice.percent(30) {
            in_variations(&mut wish);
        }
        if dice.percent(15) {
            wish.prices = Prices { lyrics: Credits::ZERO, music: Credits::ZERO };
        }
        let song = created(wish);
        Self {
            law: Law::of(&song, &rules()),
            rules: rules(),
            song,
            now: NOON,
            polled: Vec::new(),
            coming: Vec::new(),
            orders: Vec::new(),
            slot_at: NOON,
            faults,
            calls_back: !dice.percent(20),
            names: !dice.percent(20),
            tasks: 1,
            dice,
        }
    }

    /// A life with trouble, then in peace: it must come to an end, or to its owner.
    pub(super) fn live(mut self) -> Result<(), String> {
        for _ in 0..TROUBLED {
            let trouble = self.dice.below(100);
            match trouble {
                60..78 if self.faults.owner => self.command()?,
                78..90 if self.faults.odd => self.oddity()?,
                90..96 if self.faults.crash => self.crash()?,
                _ => {
                    if !self.go_on()? {
                        self.now = self.now + seconds(60);
                        self.command()?;
                    }
                }
            }
        }
        self.faults =
            Faults { crash: false, lose: false, refuse: false, limit: false, owner: false, odd: false };
        self.slot_at = self.now;
        let peace = self.now;
        for _ in 0..QUIET_MAX {
            if !self.go_on()? {
                hold!(
                    self.song.runs().next().is_none(),
                    "nothing is due, and it is at work: {:?}",
                    self.song.phase
                );
                return Ok(());
            }
            let at_work = self.song.runs().next().is_some();
            hold!(!at_work || self.now < peace + minutes(400), "no end: {:?}", self.song.phase);
        }
        Err(format!("no end after {QUIET_MAX} steps: {:?}", self.song.phase))
    }

    fn due(&self) -> Vec<(Time, Due)> {
        let never = Time::from_millis(0);
        let polled = |call| self.polled.iter().find(|(known, _)| *known == call).map_or(never, |(_, at)| *at);
        due::all(&self.song, polled, &self.rules)
    }

    /// Does what comes next; `false` if nothing will.
    fn go_on(&mut self) -> Result<bool, String> {
        let due = self.due();
        hold!(due.is_empty() == self.song.runs().next().is_none(), "due {due:?} in {:?}", self.song.phase);
        // Who stands in the queue for a slot does not miss anything else.
        let slot_at = self.slot_at;
        let next = due
            .into_iter()
            .map(|(at, due)| (if matches!(due, Due::Submit(_)) { at.max(slot_at) } else { at }, due))
            .min_by_key(|(at, _)| *at);
        let arrival = (0..self.coming.len()).min_by_key(|index| self.coming[*index].0);
        match (next, arrival) {
            (None, None) => return Ok(false),
            (Some((at, due)), arrival) if arrival.is_none_or(|index| at < self.coming[index].0) => {
                self.now = self.now.max(at);
                self.perform(due)?;
            }
            (_, Some(index)) => {
                let (at, callback, event) = self.coming.swap_remove(index);
                self.now = self.now.max(at);
                self.arrive(callback, event)?;
            }
            (Some(_), None) => unreachable!("taken above"),
        }
        Ok(true)
    }

    fn perform(&mut self, due: Due) -> Result<(), String> {
        let before = self.song.clone();
        match due {
            Due::Wake => {
                let committed = self.tell(Event::Wake)?.is_some();
                hold!(!committed || self.song != before, "woken for nothing: {:?}", before.phase);
            }
            Due::Poll(key) => {
                self.polled.retain(|(call, _)| *call != key);
                self.polled.push((key, self.now));
                let next = self.due();
                let mut polls = next.iter().filter(|(_, due)| *due == Due::Poll(key));
                hold!(polls.all(|(at, _)| *at > self.now), "polls without a pause: {next:?}");
                let order = self.orders.iter().find(|order| order.key == key);
                if let Some(order) = order {
                    let (news, name) = (self.told_by(order), Some(order.name.clone()));
                    let slow = seconds(u64::from(self.dice.below(20)));
                    self.answer(slow, Event::News { call: key, provider_task: name, news });
                }
            }
            Due::Submit(call) => {
                if self.faults.limit && self.dice.percent(50) {
                    self.slot_at = self.now + minutes(u64::from(self.dice.below(90)) + 1);
                    let by = self.dice.pick(&[
                        Waiting::Concurrency,
                        Waiting::ProviderLimit,
                        Waiting::ProviderDown,
                    ]);
                    self.tell(limited(call, by))?;
                    return Ok(());
                }
                let mut event = submitting(call, self.now);
                if let Event::Submitting { synchronous, .. } = &mut event {
                    *synchronous = !self.names;
                }
                if let Some(step) = self.tell(event)? {
                    hold!(step.acts == [Act::Submit(call)], "due, and not submitted: {:?}", before.phase);
                    if self.faults.crash && self.dice.percent(10) {
                        return self.crash();
                    }
                    self.submit(call);
                }
            }
        }
        Ok(())
    }

    /// Commits what follows from an event. Not every commit succeeds: then the writer stops, and
    /// nothing of it has happened.
    fn tell(&mut self, event: Event) -> Result<Option<Step>, String> {
        let step = self.law.step(&self.song, &event, self.now)?;
        if self.faults.lose && self.dice.percent(6) {
            self.dice.note(|| format!("{}: lost {event:?}", self.now.since(NOON).as_secs_f32()));
            self.crash()?;
            return Ok(None);
        }
        self.dice.note(|| {
            let at = self.now.since(NOON).as_secs_f32();
            format!("{at}: {event:?} => {:?} {:?} {:?}", step.kind, step.writes, step.song.phase)
        });
        self.law.commit(&self.song, &event, &step, self.now)?;
        self.song = step.song.clone();
        Ok(Some(step))
    }

    fn arrive(&mut self, callback: bool, event: Event) -> Result<(), String> {
        let again = event.clone();
        if self.tell(event)?.is_none() && callback {
            // It was answered with 503.
            let later = self.now + seconds(30);
            self.coming.push((later, true, again));
        }
        Ok(())
    }

    fn answer(&mut self, after: Duration, event: Event) {
        self.coming.push((self.now + after, false, event));
    }

    /// Only what was committed is left, as Postgres gives it back.
    fn crash(&mut self) -> Result<(), String> {
        self.dice.note(|| "crash".into());
        self.coming.retain(|(_, callback, _)| *callback);
        self.polled.clear();
        self.slot_at = self.now;
        self.now = self.now + seconds(self.dice.pick(&[0, 1, 10, 100, 1000]));
        let before = self.song.clone();
        let song = &mut self.song;
        match &mut song.phase {
            Phase::Lyrics(run) | Phase::Music(run) => *run = through_json(run),
            Phase::Failed(failure) => *failure = through_json(failure),
            Phase::LyricsReady | Phase::Ready | Phase::Complete | Phase::Cancelled | Phase::Deleted => {}
        }
        song.lyrics_progress = through_json(&song.lyrics_progress);
        song.music_progress = through_json(&song.music_progress);
        song.variants = through_json(&song.variants);
        song.additions = through_json(&song.additions);
        song.wish = through_json(&song.wish.as_ref().clone()).into();
        hold!(*song == before, "Postgres gives back something else");
        Ok(())
    }

    // --- the provider -------------------------------------------------------------------------

    fn submit(&mut self, call: CallKey) {
        let slow = seconds(u64::from(self.dice.below(25)));
        let trouble = if self.faults.refuse { self.dice.below(100) } else { 0 };
        match trouble {
            0..50 => {
                let name = self.take(call);
                if self.names {
                    let clip_ids = if self.dice.percent(30) { self.clip_ids(call) } else { Vec::new() };
                    self.answer(slow, Event::Submitted { call, provider_task: name, clip_ids });
                } else {
                    let kind = self.song.kind_of(call.task);
                    let news = self.result(kind, call, Stage::Complete);
                    self.answer(slow, Event::Answered { call, news });
                }
            }
            50..70 => {
                let failure = Failure::new(self.dice.pick(&CLASSES), "no");
                self.answer(slow, Event::SubmitFailed { call, failure });
            }
            70..95 => {
                if self.dice.percent(50) {
                    self.take(call);
                }
                let failure = Failure::new(Class::Network, "reset").maybe_arrived();
                self.answer(slow, Event::SubmitFailed { call, failure });
            }
            _ => self.answer(Duration::ZERO, Event::NotSent { call }),
        }
    }

    /// The provider takes an order on, and will tell of it, if all goes well.
    fn take(&mut self, key: CallKey) -> String {
        let name = format!("t{}", self.orders.len());
        let takes = u64::from(self.dice.below(120));
        let (lost, fails) = match self.faults.refuse {
            true => (self.dice.percent(10), self.dice.percent(20)),
            false => (false, false),
        };
        let takes = if lost { minutes(1000) } else { seconds(takes) };
        let stages = [self.now + takes / 4, self.now + takes / 2, self.now + takes];
        let order = Order { key, name: name.clone(), stages, fails };
        if self.calls_back && !lost {
            for (stage, at) in [Stage::Text, Stage::First, Stage::Complete].into_iter().zip(stages) {
                self.call_back(&order, stage, at);
            }
        }
        self.orders.push(order);
        name
    }

    /// Once, twice, late or never.
    fn call_back(&mut self, order: &Order, stage: Stage, at: Time) {
        let times = if self.faults.odd { self.dice.pick(&[1, 1, 2, 0]) } else { 1 };
        for _ in 0..times {
            let late = if self.faults.odd { self.dice.pick(&[0, 0, 1, 30, 300, 900]) } else { 0 };
            let kind = self.song.kind_of(order.key.task);
            let news = match order.fails && stage == Stage::Complete {
                true => gave_up(self.dice.pick(&CLASSES)),
                false => self.result(kind, order.key, stage),
            };
            let provider_task = Some(order.name.clone()).filter(|_| self.dice.percent(70));
            self.coming.push((
                at + seconds(late),
                true,
                Event::News { call: order.key, provider_task, news },
            ));
        }
    }

    fn told_by(&self, order: &Order) -> News {
        let reached = order.stages.iter().filter(|at| **at <= self.now).count();
        let kind = self.song.kind_of(order.key.task);
        match reached {
            0 => News::Working,
            3 if order.fails => gave_up(Class::ProviderError),
            n => self.result(kind, order.key, [Stage::Text, Stage::First, Stage::Complete][n - 1]),
        }
    }

    fn result(&self, kind: crate::song::parts::TaskKind, key: CallKey, stage: Stage) -> News {
        use crate::song::parts::Makes;
        let calls = self.song.wish.calls(kind);
        let ids = self.clip_ids(key);
        match (kind.makes(), stage) {
            (Makes::Addition, Stage::Complete) => News::Made(made(kind)),
            (Makes::Addition, Stage::Text | Stage::First) => News::Working,
            (Makes::Lyrics, Stage::Complete) => texts(&["la", "lo"][..usize::from(3 - calls)]),
            (Makes::Lyrics, Stage::Text | Stage::First) => News::Working,
            (Makes::Music, Stage::Text) => News::Clips(stage, ids.iter().map(|id| named_clip(id)).collect()),
            (Makes::Music, Stage::First) => {
                let clips = ids.iter().enumerate();
                News::Clips(
                    stage,
                    clips.map(|(n, id)| if n == 0 { clip(id) } else { named_clip(id) }).collect(),
                )
            }
            (Makes::Music, Stage::Complete) => News::Clips(stage, ids.iter().map(|id| clip(id)).collect()),
        }
    }

    fn clip_ids(&self, key: CallKey) -> Vec<String> {
        let calls = self.song.wish.calls(self.song.kind_of(key.task));
        let clips = if self.song.wish.variations.is_empty() { 3_u8.saturating_sub(calls) } else { 2 };
        (0..clips).map(|n| format!("{}{}{n}", key.call, key.attempt)).collect()
    }

    // --- people and noise ---------------------------------------------------------------------

    fn command(&mut self) -> Result<(), String> {
        let event = any_command(self.dice, self.tasks + 1);
        let before = (self.song.head.task, self.song.additions.len());
        self.tell(event)?;
        if (self.song.head.task, self.song.additions.len()) != before {
            self.tasks += 1;
        }
        Ok(())
    }

    /// News of any kind for any call that was once made: what nobody expects of a provider.
    fn oddity(&mut self) -> Result<(), String> {
        // A sweep may wake any song at any time.
        if self.orders.is_empty() || self.dice.percent(20) {
            return self.tell(Event::Wake).map(drop);
        }
        let which = self.dice.below(u32::try_from(self.orders.len()).expect("few orders")) as usize;
        let order = &self.orders[which];
        let (call, name) = (order.key, order.name.clone());
        let news = any_news(self.dice);
        let provider_task = Some(name).filter(|_| self.dice.percent(50));
        self.arrive(true, Event::News { call, provider_task, news })
    }
}

fn through_json<T: serde::Serialize + serde::de::DeserializeOwned>(value: &T) -> T {
    let json = serde_json::to_string(value).expect("it can be stored");
    serde_json::from_str(&json).expect("what was stored can be read")
}

/// Whom else the wish may go to, in as many calls as that one takes.
pub(super) fn others(dice: &mut Dice) -> Vec<Alternative> {
    let names = ["mureka", "minimax"];
    let count = dice.below(3) as usize;
    let calls = |dice: &mut Dice| Calls { lyrics: 1 + dice.below(2) as u8, music: 1 + dice.below(2) as u8 };
    names[..count]
        .iter()
        .map(|name| Alternative { provider: (*name).into(), calls: calls(dice), model: None })
        .collect()
}

/// Each variant by a call of its own, whoever makes it.
pub(super) fn in_variations(wish: &mut Wish) {
    wish.variations = vec![Variation::default(); usize::from(wish.variants)];
    wish.calls.music = wish.variants;
    for other in &mut wish.alternatives {
        other.calls.music = wish.variants;
    }
}

pub(super) fn any_command(dice: &mut Dice, next_task: u8) -> Event {
    match dice.below(16) {
        12 | 13 => Event::Resumed { task: task(next_task) },
        14 => Event::Claimed { by: UserId::trusted(dice.pick(&["alice", "bob"])), plan: "pro" },
        15 => Event::Viewed,
        10 | 11 => {
            let kind = dice.pick(&[TaskKind::Stems, TaskKind::Persona, TaskKind::Video]);
            asked(next_task, kind, 1 + i16::from(dice.percent(50)))
        }
        0 | 1 => {
            let choice = match dice.below(4) {
                3 => Choice::Text { text: "my own".into(), title: Some("Mine".into()) },
                index => Choice::Variant(i16::try_from(index).expect("small")),
            };
            Event::Chosen { choice, task: task(next_task), unable: Vec::new() }
        }
        2 | 3 => Event::Retried {
            task: task(next_task),
            prompt: dice.percent(50).then(|| format!("words {next_task}")),
            lyrics: dice.percent(30).then(|| format!("la {next_task}")),
            unable: Vec::new(),
        },
        4 => Event::Cancelled,
        5 | 6 => Event::Viewed,
        7 => Event::Unshared {
            variant_number: i16::try_from(dice.below(4)).expect("small"),
            share_token: ShareToken(Uuid::from_u128(dice.below(u32::MAX).into())),
        },
        8 => Event::Selected {
            variant_number: i16::try_from(dice.below(4)).expect("small"),
            selected: !dice.percent(30),
        },
        _ => match dice.percent(50) {
            true => Event::Deleted,
            false => Event::Viewed,
        },
    }
}

pub(super) fn any_news(dice: &mut Dice) -> News {
    match dice.below(9) {
        8 => News::Made(made(dice.pick(&[TaskKind::Stems, TaskKind::Persona, TaskKind::Video]))),
        0 | 1 => News::Working,
        2 => texts(&["la", "", "lo"][..dice.below(4) as usize]),
        3 => gave_up(dice.pick(&CLASSES)),
        _ => {
            let stage = dice.pick(&[Stage::Text, Stage::First, Stage::Complete]);
            // A provider names its clips or does not, and tells of each once in a report.
            let (named, from) = (!dice.percent(20), dice.below(5));
            let ids = (from..from + dice.below(4)).map(|n| ["00", "10", "01", "x", "y"][n as usize % 5]);
            News::Clips(stage, ids.map(|id| any_clip(dice, id, named)).collect())
        }
    }
}

fn any_clip(dice: &mut Dice, id: &str, named: bool) -> Clip {
    Clip {
        audio_url: dice.percent(50).then(|| format!("https://files/{id}.mp3")),
        stream_url: dice.percent(50).then(|| format!("https://files/{id}")),
        lyrics: dice.percent(20).then(|| "sung".into()),
        title: dice.percent(20).then(|| "told".into()),
        fallback_url: dice.percent(50).then(|| format!("https://cdn/{id}.mp3")),
        clip_id: named.then(|| id.into()),
        failed: dice.percent(10),
        finished: dice.percent(15),
        ..Clip::default()
    }
}

/// Any event at all, for a call that may never have been.
pub(super) fn any_event(dice: &mut Dice, now: Time, next_task: u8) -> Event {
    let call = CallKey {
        task: task(1 + dice.below(u32::from(next_task)) as u8),
        call: dice.below(3) as u8,
        attempt: dice.below(4) as u16,
    };
    let name = || "t".to_owned();
    match dice.below(12) {
        0 => limited(call, dice.pick(&[Waiting::Concurrency, Waiting::ProviderLimit, Waiting::ProviderDown])),
        1 | 2 => submitting(call, now),
        3 => Event::NotSent { call },
        4 => submitted(call, if dice.percent(20) { "" } else { "t" }),
        5 => {
            let failure = Failure::new(dice.pick(&CLASSES), "no");
            let failure = if dice.percent(50) { failure.maybe_arrived() } else { failure };
            Event::SubmitFailed { call, failure }
        }
        6 => Event::Answered { call, news: any_news(dice) },
        7..9 => {
            let provider_task = dice.percent(50).then(name);
            Event::News { call, provider_task, news: any_news(dice) }
        }
        9 => Event::Wake,
        _ => any_command(dice, next_task),
    }
}
