//! The simulated providers: what they take on they work at, whoever asked may die meanwhile. They refuse, forget, answer
//! late or never, and say one thing in a callback and another when asked.

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use songflight::id::CallKey;
use songflight::provider::failure::{Class, Failure};
use songflight::provider::gate::{BreakerRules, Gate, Limits};
use songflight::provider::{
    Accepted, Callback, Capabilities, Clip, LyricsText, Made, Makes, Malformed, Member, News, Order,
    Provider, Providers, Stage, Stem, Submitted, TaskKind, minimax, mureka, suno,
};
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, sleep};

use super::plan::CALL_TIMEOUT;
use super::sim::{Life, Sim, State};

/// What the providers have in work.
#[derive(Default)]
pub struct Orders {
    taken: BTreeMap<CallKey, Work>,
    pub courier: Option<mpsc::UnboundedSender<Letter>>,
}

struct Work {
    name: String,
    /// When the words, the first clip, the end is there.
    stages: [Instant; 3],
    result: Vec<News>,
    forgotten: bool,
}

/// A callback on its way.
#[derive(Clone)]
pub struct Letter {
    pub at: Instant,
    pub provider: &'static str,
    pub key: CallKey,
    pub task: Option<String>,
    pub news: News,
}

/// A provider as one run of one node reaches it.
struct Desk {
    sim: Sim,
    life: Arc<Life>,
    able: &'static Capabilities,
}

/// A node's providers, with gates of its own.
pub fn providers(sim: &Sim, life: &Arc<Life>) -> Providers {
    let tasks_max = sim.lock().plan.tasks_max;
    let member = |able: &'static Capabilities| {
        let desk = Desk { sim: sim.clone(), life: life.clone(), able };
        let limits = Limits { rate: None, tasks_max, breaker: BreakerRules::default() };
        Member::new(Arc::new(desk), Gate::of(able.name, limits))
    };
    Providers::new(all().map(member))
}

/// One that calls back, one that is asked, one that answers at once.
pub fn all() -> [&'static Capabilities; 3] {
    [suno::capabilities(), mureka::capabilities(), minimax::capabilities()]
}

/// How often in a thousand a program dies over a call.
const CALLING: u64 = 12;

/// What becomes of a submission.
#[derive(Clone, Copy, Debug)]
enum Fate {
    Fine,
    Refused(Class),
    Limited,
    /// Nobody listens there.
    Unreachable,
    /// The request, or the answer, gets lost.
    RequestLost,
    AnswerLost,
    /// A bare 5xx, before or after the order was taken.
    Error {
        taken: bool,
    },
}

fn fate(state: &mut State) -> Fate {
    let (faults, dice) = (state.faults, &mut state.dice);
    match dice.below(100) {
        0..10 if faults.refuse => Fate::Refused(dice.pick(&[
            Class::ProviderError,
            Class::Moderation,
            Class::InvalidInput,
            Class::Unknown,
            Class::InsufficientProviderCredits,
        ])),
        10..18 if faults.limit => Fate::Limited,
        18..23 if faults.refuse => Fate::Unreachable,
        23..31 if faults.ambiguous => Fate::RequestLost,
        31..39 if faults.ambiguous => Fate::AnswerLost,
        39..47 if faults.ambiguous => Fate::Error { taken: dice.percent(50) },
        _ => Fate::Fine,
    }
}

#[async_trait(?Send)]
impl Provider for Desk {
    fn capabilities(&self) -> &'static Capabilities {
        self.able
    }

    async fn submit(&self, order: &Order, _: &str) -> Result<Submitted, Failure> {
        self.life.or_never().await;
        let (key, wall, node) = (order.key, self.life.clock.now(), self.life.key());
        let fate = self.sim.with(|state, now| {
            state.law.call_begins(key, self.able.name, &state.tables, node, (wall, now));
            state.mark(u64::from(key.attempt), now);
            fate(state)
        });
        self.sim.note(|| format!("node {} calls {} for {key}: {fate:?}", self.life.number, self.able.name));
        let (answer, heard) = oneshot::channel();
        tokio::spawn(serve(self.sim.clone(), self.able, order.clone(), fate, answer));
        let patience = self.able.submit_timeout.unwrap_or_default().max(CALL_TIMEOUT);
        let answer = tokio::time::timeout(patience, heard).await;
        self.life.moment(&self.sim, CALLING).await;
        let reset = |words| Failure::new(Class::Network, words).maybe_arrived();
        match answer {
            Ok(Ok(answer)) => answer,
            Ok(Err(_)) => Err(reset("reset")),
            Err(_) => Err(reset("no answer in time")),
        }
    }

    async fn poll(&self, order: &Order, task: &str) -> Result<News, Failure> {
        self.life.moment(&self.sim, CALLING).await;
        let (takes, broken) = self.sim.with(|state, _| {
            let broken = state.faults.refuse && state.dice.percent(10);
            (state.dice.millis(50, 1_000), broken)
        });
        sleep(takes).await;
        self.life.moment(&self.sim, CALLING).await;
        if broken {
            return Err(Failure::new(Class::Network, "reset"));
        }
        let news = self.sim.with(|state, _| {
            let news = told(state, order, task);
            if is_final(&news) {
                state.law.over(order.key);
            }
            news
        });
        self.sim.note(|| format!("node {} asks for {}: {news:?}", self.life.number, order.key));
        Ok(news)
    }

    fn read(&self, _: TaskKind, _: &[u8]) -> Result<Callback, Malformed> {
        Err(Malformed("callbacks of a simulated provider come read".to_owned()))
    }

    fn audio_from_clip_id(&self, clip_id: &str) -> Option<String> {
        (self.able.name == "suno").then(|| format!("https://cdn/{clip_id}.mp3"))
    }
}

pub fn is_final(news: &News) -> bool {
    match news {
        News::Working => false,
        News::Lyrics(_) | News::Made(_) | News::Failed(_) => true,
        News::Clips(stage, clips) => *stage == Stage::Complete || clips.iter().any(|clip| clip.finished),
    }
}

/// The provider's side of a submission.
async fn serve(
    sim: Sim,
    able: &'static Capabilities,
    order: Order,
    fate: Fate,
    answer: oneshot::Sender<Result<Submitted, Failure>>,
) {
    let key = order.key;
    let (there, back) = sim.dice(|dice| (dice.millis(10, 2_000), dice.millis(10, 3_000)));
    sleep(there).await;
    let failed = |failure: Failure| {
        sim.lock().law.over(key);
        Err(failure)
    };
    let said = match fate {
        Fate::RequestLost => return sleep(CALL_TIMEOUT).await,
        Fate::AnswerLost => {
            drop(answer);
            take(&sim, able, &order);
            return;
        }
        Fate::Error { taken } => {
            if taken {
                take(&sim, able, &order);
            }
            Err(Failure::new(Class::ProviderError, "500").maybe_arrived())
        }
        Fate::Refused(class) => failed(Failure::new(class, "no")),
        Fate::Limited => {
            let wait = sim.dice(|dice| dice.millis(1_000, 20_000));
            failed(Failure::new(Class::RateLimited, "slower").retry_after(Some(wait)))
        }
        Fate::Unreachable => failed(Failure::new(Class::Network, "refused")),
        Fate::Fine => Ok(take(&sim, able, &order)),
    };
    let said = match said {
        Ok(accepted) if able.synchronous => finish(&sim, &order, accepted).await,
        Ok(accepted) => Ok(Submitted::Task(accepted)),
        Err(failure) => Err(failure),
    };
    sleep(back).await;
    drop(answer.send(said));
}

/// One long call that answers with the result.
async fn finish(sim: &Sim, order: &Order, _: Accepted) -> Result<Submitted, Failure> {
    let end = sim.lock().orders.taken[&order.key].stages[2];
    tokio::time::sleep_until(end).await;
    let news = sim.with(|state, _| {
        state.law.over(order.key);
        state.orders.taken[&order.key].result.last().cloned().unwrap_or(News::Working)
    });
    match news {
        News::Failed(failure) => Err(failure),
        news => Ok(Submitted::Done(news)),
    }
}

/// Takes an order on, and will tell of it, if all goes well.
fn take(sim: &Sim, able: &'static Capabilities, order: &Order) -> Accepted {
    let begun = Instant::now();
    let (accepted, letters) = sim.with(|state, _| {
        state.law.taken(order.key);
        let work = work(state, able, order, begun);
        let clip_ids = if state.dice.percent(30) { clip_ids(order) } else { Vec::new() };
        let accepted = Accepted { task: work.name.clone(), clip_ids };
        let letters =
            if able.callbacks && !work.forgotten { letters(state, able, order, &work) } else { Vec::new() };
        state.orders.taken.insert(order.key, work);
        (accepted, letters)
    });
    for letter in letters {
        if let Some(courier) = &sim.lock().orders.courier {
            // Without anybody to carry it, it stays where it is.
            drop(courier.send(letter));
        }
    }
    accepted
}

fn work(state: &mut State, able: &Capabilities, order: &Order, begun: Instant) -> Work {
    let (faults, dice) = (state.faults, &mut state.dice);
    let takes = dice.millis(3_000, if faults.late { 120_000 } else { 40_000 });
    let fails = faults.refuse && dice.percent(20);
    let mut result: Vec<News> = [Stage::Text, Stage::First, Stage::Complete]
        .into_iter()
        .map(|stage| news(able, order, stage))
        .collect();
    if fails {
        let class = dice.pick(&[
            Class::ProviderError,
            Class::Moderation,
            Class::Unknown,
            Class::Timeout,
            Class::RateLimited,
        ]);
        result[2] = News::Failed(Failure::new(class, "it failed"));
    }
    let forgotten = !able.synchronous && faults.forget && dice.percent(15);
    let name = format!("t{}", dice.below(1_000_000));
    Work { name, stages: [begun + takes / 4, begun + takes / 2, begun + takes], result, forgotten }
}

/// Each stage's callback: once, twice, late or never, and sometimes of something else.
fn letters(state: &mut State, able: &'static Capabilities, order: &Order, work: &Work) -> Vec<Letter> {
    let (faults, dice) = (state.faults, &mut state.dice);
    let mut letters = Vec::new();
    for (at, news) in work.stages.iter().zip(&work.result) {
        let missing = faults.missing && dice.percent(25);
        let times = if missing { 0 } else { 1 + u32::from(faults.twice && dice.percent(30)) };
        for _ in 0..times {
            let late = match faults.late && dice.percent(30) {
                true => dice.millis(0, 400_000),
                false => dice.millis(0, 500),
            };
            // A callback may overtake the answer to its submission.
            let early = faults.twice && dice.percent(10);
            let task = dice.percent(70).then(|| work.name.clone());
            let news = if faults.lie && dice.percent(15) { a_lie(dice, order) } else { news.clone() };
            let at = if early { Instant::now() } else { *at + late };
            letters.push(Letter { at, provider: able.name, key: order.key, task, news });
        }
    }
    letters
}

fn a_lie(dice: &mut super::dice::Dice, order: &Order) -> News {
    match dice.below(5) {
        0 => News::Failed(Failure::new(Class::ProviderError, "it failed after all")),
        1 => News::Lyrics(vec![LyricsText { title: None, text: "other words".to_owned() }]),
        2 => News::Clips(Stage::Complete, Vec::new()),
        3 => News::Clips(Stage::First, vec![clip(&format!("{}-other", order.key.attempt))]),
        _ => News::Working,
    }
}

/// What a poll is told.
fn told(state: &mut State, order: &Order, task: &str) -> News {
    let lie = state.faults.lie && state.dice.percent(5);
    if lie {
        return a_lie(&mut state.dice, order);
    }
    let Some(work) = state.orders.taken.get(&order.key).filter(|work| work.name == task && !work.forgotten)
    else {
        return News::Working;
    };
    let reached = work.stages.iter().filter(|at| **at <= Instant::now()).count();
    reached.checked_sub(1).map_or(News::Working, |stage| work.result[stage].clone())
}

fn clip_ids(order: &Order) -> Vec<String> {
    if order.kind().makes() != Makes::Music {
        return Vec::new();
    }
    (0..order.variants.max(1)).map(|n| format!("{}{}{n}", order.key.call, order.key.attempt)).collect()
}

fn clip(id: &str) -> Clip {
    Clip {
        clip_id: Some(id.to_owned()),
        audio_url: Some(format!("https://files/{id}.mp3")),
        ..Clip::default()
    }
}

fn news(able: &Capabilities, order: &Order, stage: Stage) -> News {
    let ids = clip_ids(order);
    let named = |id: &String| Clip { clip_id: Some(id.clone()), ..Clip::default() };
    match (order.kind().makes(), stage) {
        (Makes::Lyrics, Stage::Complete) => {
            let text = |n| LyricsText { title: Some(format!("song {n}")), text: format!("la {n}") };
            News::Lyrics((0..able.texts_per_call).map(text).collect())
        }
        (Makes::Addition, Stage::Complete) => News::Made(made(order.kind())),
        (Makes::Lyrics | Makes::Addition, Stage::Text | Stage::First) => News::Working,
        (Makes::Music, Stage::Text) => News::Clips(stage, ids.iter().map(named).collect()),
        (Makes::Music, Stage::First) => {
            let first = |(n, id): (usize, &String)| if n == 0 { clip(id) } else { named(id) };
            News::Clips(stage, ids.iter().enumerate().map(first).collect())
        }
        (Makes::Music, Stage::Complete) => News::Clips(stage, ids.iter().map(|id| clip(id)).collect()),
    }
}

fn made(kind: TaskKind) -> Made {
    match kind {
        TaskKind::Persona => Made::Persona { persona_id: "p".to_owned(), name: None, description: None },
        TaskKind::Video => Made::Video { video_url: "https://files/video.mp4".to_owned() },
        _ => {
            Made::Stems { stems: vec![Stem { name: "vocals".to_owned(), url: "https://files/v".to_owned() }] }
        }
    }
}
