//! What holds for every step of every song (`design.md` section 9), checked at each commit.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value};

use super::*;
use crate::song::event::EventKind;
use crate::song::phase::Push;
use crate::song::step::Act;
use crate::song::{refusal, view};

/// Says what is broken where a condition does not hold.
macro_rules! hold {
    ($condition:expr, $($words:tt)+) => {
        if !$condition {
            return Err(format!($($words)+));
        }
    };
}
pub(super) use hold;

/// The books, and what watchers have been told.
pub(super) struct Law {
    rules: Rules,
    /// Of each task: what was reserved, and what of it was given back, if it was settled.
    ledger: BTreeMap<TaskId, (i64, Option<i64>)>,
    pushes: Vec<Push>,
    /// The song as it is shown, and as a client has it that laid every `set` over the created song.
    shown: Map<String, Value>,
    client: Map<String, Value>,
    /// What became of each call that was made.
    calls: BTreeMap<(TaskId, u8, u16), Made>,
    /// The calls that a provider is known to have taken, each to be paid for by us (CRED-6).
    taken: BTreeSet<(TaskId, u8, u16)>,
}

#[derive(Clone, Copy, Debug)]
struct Made {
    acts: u16,
    not_sent: u16,
    fate: Fate,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Fate {
    /// Unknown from this time on, if nothing is heard.
    Open(Time),
    /// The provider is known to have it.
    Named,
    /// It is known to be over, or never to have arrived.
    Over,
}

impl Law {
    pub(super) fn of(song: &Song, rules: &Rules) -> Self {
        let shown = view::view(song, rules);
        let mut ledger = BTreeMap::new();
        if song.head.price != Credits::ZERO {
            ledger.insert(song.head.task, (song.head.price.thousandths(), None));
        }
        Self {
            rules: rules.clone(),
            ledger,
            pushes: Vec::new(),
            client: shown.clone(),
            shown,
            calls: BTreeMap::new(),
            taken: BTreeSet::new(),
        }
    }

    /// The step that this event leads to, if it breaks no law.
    pub(super) fn step(&mut self, song: &Song, event: &Event, now: Time) -> Result<Step, String> {
        let step = step(song, event, now, &self.rules);
        hold!(step == super::step(song, event, now, &self.rules), "not a function");
        hold!(legal(song.status(), step.song.status()), "{:?} -> {:?}", song.status(), step.song.status());
        hold!(
            step.song.seq == song.seq + numbers(song, &step),
            "seq {} after {} with {:?}",
            step.song.seq,
            song.seq,
            step.kind
        );
        if refusal::check(song, event, now, &self.rules).is_err() {
            hold!(refusable(event).is_none_or(|()| step.is_nothing(song)), "refused, and done: {event:?}");
        }
        Ok(step)
    }

    /// The step was committed, by a shell that tells what is true.
    pub(super) fn commit(
        &mut self,
        before: &Song,
        event: &Event,
        step: &Step,
        now: Time,
    ) -> Result<(), String> {
        self.facts(event, &step.song, now);
        if step.kind == Some(EventKind::ProviderChanged) {
            // The provider before was given up, whatever it still does.
            for (key, made) in &mut self.calls {
                if key.0 == step.song.head.task {
                    made.fate = Fate::Over;
                }
            }
        }
        for Act::Submit(key) in &step.acts {
            self.submit(*key, event, step)?;
        }
        self.commit_unordered(before, event, step, now)
    }

    /// The step was committed, whatever may have led to its event.
    pub(super) fn commit_unordered(
        &mut self,
        before: &Song,
        event: &Event,
        step: &Step,
        now: Time,
    ) -> Result<(), String> {
        if !step.is_nothing(before) {
            self.view(before, step)?;
            self.books(step)?;
            self.costs(event, step)?;
        }
        self.twice(event, step, now)
    }

    fn view(&mut self, before: &Song, step: &Step) -> Result<(), String> {
        let after = view::view(&step.song, &self.rules);
        let told = view::changes(Some(before), &step.song, &self.rules);
        let set: Map<String, Value> = serde_json::from_str(told.get()).map_err(|error| error.to_string())?;
        let differs =
            |(field, value): &(&String, &Value)| *field != "seq" && self.shown.get(*field) != Some(*value);
        let difference: Map<String, Value> =
            after.iter().filter(differs).map(|(field, value)| (field.clone(), value.clone())).collect();
        hold!(set == difference, "told {set:?} where {difference:?} changed");
        let seen = set.keys().any(|field| field != "updated_at");
        match step.kind {
            None => hold!(set.is_empty(), "nobody was told of {set:?}"),
            Some(EventKind::Created) => hold!(before.user != step.song.user, "created twice"),
            Some(EventKind::Gone) => hold!(step.song.phase == Phase::Deleted, "gone and there"),
            Some(kind) => hold!(seen, "{kind:?} without a difference, {before:?}"),
        }
        hold!(!set.contains_key("seq"), "seq in set");
        let sung = step.song.lyrics_variants.iter().filter(|text| text.selected).collect::<Vec<_>>();
        hold!(sung.len() <= 1, "several texts are selected");
        let other = sung.iter().any(|text| step.song.lyrics.as_deref() != Some(&text.text));
        hold!(!other || step.song.lyrics.is_none(), "the selected text is not the one that is sung");
        self.client.extend(set);
        self.shown = after;
        let mut client = self.client.clone();
        client.insert("seq".into(), step.song.seq.into());
        hold!(client == self.shown, "a client that overlays sees something else");
        Ok(())
    }

    /// Each task is reserved for once and settled once; what is at work is reserved for; the sum fits.
    fn books(&mut self, step: &Step) -> Result<(), String> {
        for write in &step.writes {
            match write {
                Write::Reserve { task, amount, .. } => {
                    let entry = (amount.thousandths(), None);
                    hold!(entry.0 > 0, "a reservation of nothing");
                    hold!(self.ledger.insert(*task, entry).is_none(), "reserved twice");
                }
                Write::Settle { task, settlement, amount, .. } => {
                    let amount = amount.thousandths();
                    let Some((reserved, settled)) = self.ledger.get_mut(task) else {
                        return Err("settled without a reservation".into());
                    };
                    hold!(settled.replace(amount).is_none(), "settled twice");
                    let fits = match settlement {
                        Settlement::Release => amount == *reserved,
                        Settlement::Capture => (0..*reserved).contains(&amount),
                    };
                    hold!(fits, "{settlement:?} of {amount} for {reserved}");
                }
                Write::Notify(push) => {
                    hold!(!self.pushes.contains(push), "{push:?} twice");
                    self.pushes.push(*push);
                }
                Write::Ref { call, provider_task, .. } => {
                    hold!(provider_task.as_deref() != Some(""), "an empty name");
                    self.taken.insert((call.task, call.call, call.attempt));
                }
            }
        }
        let song = &step.song;
        for (task, (reserved, settled)) in &self.ledger {
            let at_work = song.run_of(*task).is_some();
            hold!(settled.is_none() == at_work, "task {task} of {reserved}: settled {settled:?}");
        }
        let cost: i64 = self.ledger.values().map(|(reserved, _)| reserved).sum();
        let back: i64 = self.ledger.values().filter_map(|(_, settled)| *settled).sum();
        hold!((cost, back) == (song.cost.thousandths(), song.refunded.thousandths()), "cost or refund");
        hold!(song.pushes == self.pushes, "pushes");
        Ok(())
    }

    /// What a provider works on, or answered at once, is written down as taken.
    fn costs(&self, event: &Event, step: &Step) -> Result<(), String> {
        if let Event::Answered { call, .. } = event {
            hold!(self.taken.contains(&(call.task, call.call, call.attempt)), "{call} costs nothing");
        }
        for (task, run) in step.song.runs() {
            for (call, at) in run.calls.iter().zip(0..) {
                let works = matches!(call.state, CallState::Submitted { .. });
                let taken = self.taken.contains(&(task, at, call.attempt));
                hold!(taken || !works, "call {at} of {task} is at work and costs nothing");
            }
        }
        Ok(())
    }

    fn facts(&mut self, event: &Event, after: &Song, now: Time) {
        // A superseded order that reports beside the one that replaced it is heard and left alone.
        let taken_on = |key: &CallKey| {
            let call = after.run_of(key.task).and_then(|run| run.calls.get(usize::from(key.call)));
            call.is_some_and(|call| call.attempt == key.attempt)
        };
        let (key, fate) = match event {
            Event::Submitted { call, .. } if taken_on(call) => (call, Fate::Named),
            Event::Answered { call, .. } => (call, Fate::Over),
            Event::SubmitFailed { call, failure } => match failure.arrived {
                crate::provider::failure::Arrived::No => (call, Fate::Over),
                crate::provider::failure::Arrived::Maybe => (call, Fate::Open(now)),
            },
            Event::News {
                call,
                news: News::Failed(_) | News::Clips(Stage::Complete, _) | News::Made(_),
                ..
            } => (call, Fate::Over),
            Event::News { call, .. } if taken_on(call) => (call, Fate::Named),
            // The last of its clips was told of, and none can be played: it failed.
            Event::News { call, news: News::Clips(_, clips), .. }
                if clips.iter().any(|clip| clip.finished) =>
            {
                (call, Fate::Over)
            }
            Event::NotSent { call } => {
                if let Some(made) = self.calls.get_mut(&(call.task, call.call, call.attempt)) {
                    made.not_sent += 1;
                }
                (call, Fate::Over)
            }
            _ => return,
        };
        if let Some(made) = self.calls.get_mut(&(key.task, key.call, key.attempt))
            && made.fate != Fate::Over
        {
            made.fate = fate;
        }
    }

    /// Each key is sent once; beside an order that may have arrived another is sent only once the grace
    /// is over, and only once (PROV-5).
    fn submit(&mut self, key: CallKey, event: &Event, step: &Step) -> Result<(), String> {
        let Event::Submitting { call, not_after, settled_by, .. } = event else {
            return Err("an act that nobody asked for".into());
        };
        hold!(*call == key && step.song.run_of(key.task).is_some(), "an act for another call");
        let unknown_from = *settled_by;
        let now = *not_after - seconds(5);
        let earlier = (key.task, key.call, 0)..(key.task, key.call, key.attempt);
        let mut open = 0;
        for (_, made) in self.calls.range(earlier) {
            match made.fate {
                Fate::Open(since) => {
                    open += 1;
                    hold!(since + self.rules.grace <= now, "sent again before the grace was over");
                }
                Fate::Named => return Err("sent again while the provider works on it".into()),
                Fate::Over => {}
            }
        }
        hold!(open <= 1, "sent again more than once");
        let made = self.calls.entry((key.task, key.call, key.attempt)).or_insert(Made {
            acts: 0,
            not_sent: 0,
            fate: Fate::Over,
        });
        made.acts += 1;
        made.fate = Fate::Open(unknown_from);
        hold!(made.acts <= 1 + made.not_sent, "{key} was sent twice");
        Ok(())
    }

    /// What is told again changes nothing again (CB-4). Time may: it can have more to say.
    fn twice(&self, event: &Event, first: &Step, now: Time) -> Result<(), String> {
        if *event == Event::Wake {
            return Ok(());
        }
        let again = super::step(&first.song, event, now, &self.rules);
        hold!(again.song == first.song, "told twice, changed twice: {:?}", again.song.phase);
        let only_names = again.writes.iter().all(|write| matches!(write, Write::Ref { .. }));
        hold!(only_names && again.acts.is_empty(), "told twice, done twice: {:?}", again.writes);
        Ok(())
    }
}

/// A song that moves to another owner is gone for one and created for the other.
fn numbers(before: &Song, step: &Step) -> i64 {
    if before.user == step.song.user { i64::from(step.kind.is_some()) } else { 2 }
}

/// What an owner may be refused.
const fn refusable(event: &Event) -> Option<()> {
    match event {
        Event::Chosen { .. }
        | Event::Retried { .. }
        | Event::Asked { .. }
        | Event::Resumed { .. }
        | Event::Cancelled
        | Event::Viewed
        | Event::Selected { .. }
        | Event::Unshared { .. } => Some(()),
        _ => None,
    }
}

fn legal(from: Status, to: Status) -> bool {
    use Status::*;
    from == to
        || match from {
            Pending => to != Complete,
            GeneratingLyrics => matches!(to, LyricsReady | Failed | Cancelled),
            LyricsReady => matches!(to, GeneratingMusic | Cancelled),
            GeneratingMusic => matches!(to, Ready | Failed | Cancelled | Complete),
            // What is missing of its variations is made.
            Ready => matches!(to, Complete | GeneratingMusic),
            Failed => matches!(to, GeneratingLyrics | GeneratingMusic | Cancelled | Complete),
            Complete => matches!(to, Cancelled | GeneratingMusic),
            Cancelled => to == Complete,
        }
}
