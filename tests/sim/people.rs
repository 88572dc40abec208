//! The users: they order songs, repeat what was not answered, choose, change their minds; and the couriers, who bring
//! what providers call back, to any node.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use songflight::credit::Credits;
use songflight::id::{ShareToken, SongId, TaskId, UserId};
use songflight::song::actor::{TellError, Told, with_fallback_urls};
use songflight::song::directory::Born;
use songflight::song::event::{Choice, Event, NewAddition};
use songflight::song::parts::{MusicOptions, SourceClip, TaskKind, Work};
use songflight::song::phase::{Phase, Song};
use songflight::song::view;
use songflight::song::wish::{Alternative, Calls, Mode, Prices, Wish};
use songflight::store::births::{Birth, Terms};
use songflight::store::journal::{CommitError, Committed, Entry};
use songflight::store::row::{InboxRow, NewSong};
use tokio::sync::mpsc;
use tokio::time::sleep;

use super::dice::Dice;
use super::node::{Machine, NoAnswer, Ports};
use super::plan::{plans, rules};
use super::provider::{Letter, all, is_final};
use super::sim::Sim;

#[derive(Clone)]
pub struct Town {
    pub sim: Sim,
    pub machines: Rc<[Rc<Machine>]>,
}

/// A client gives up after this.
const PATIENCE: Duration = Duration::from_secs(12);

impl Town {
    fn any(&self) -> Rc<Machine> {
        let machines = &self.machines;
        let index = self.sim.dice(|dice| dice.below(machines.len() as u64));
        machines[usize::try_from(index).expect("few")].clone()
    }

    /// Whether people and providers still make trouble.
    fn in_trouble(&self) -> bool {
        let faults = self.sim.lock().faults;
        faults.fickle || faults.impatient
    }
}

/// Orders some songs and looks after each.
pub async fn live(town: Town, number: usize) {
    let user = UserId::trusted(&format!("user-{number}"));
    let songs = town.sim.lock().plan.songs_each;
    for song in 0..songs {
        let pause = town.sim.dice(|dice| dice.millis(0, 60_000));
        sleep(pause).await;
        let key = format!("{user}-{song}");
        tokio::task::spawn_local(order(town.clone(), user.clone(), key));
    }
}

async fn order(town: Town, user: UserId, key: String) {
    let wish = town.sim.dice(a_wish);
    let impatient = town.sim.lock().faults.impatient;
    if impatient && town.sim.dice(|dice| dice.percent(40)) {
        // Two clicks.
        tokio::task::spawn_local(create_until_answered(
            town.clone(),
            user.clone(),
            key.clone(),
            wish.clone(),
        ));
    }
    let Some(song) = create_until_answered(town.clone(), user.clone(), key, wish).await else { return };
    look_after(town, user, song).await;
}

async fn create_until_answered(town: Town, user: UserId, key: String, wish: Wish) -> Option<SongId> {
    for _ in 0..30 {
        let machine = town.any();
        let new = |ports: &Ports| new_song(ports, &user, &key, &wish);
        let answer = machine.request(PATIENCE, |ports| create(new(&ports), ports)).await;
        match answer {
            Ok(Ok(Birth::Created { song } | Birth::Replay { song })) => {
                let there = town.sim.lock().tables.songs.contains_key(&song);
                town.sim.lock().law.hold(there, || format!("song {song} was promised and is not there"));
                return Some(song);
            }
            Ok(Ok(Birth::Short { .. } | Birth::KeyGone | Birth::Claimed)) => return None,
            Ok(Ok(other)) => {
                town.sim.lock().law.hold(false, || format!("{key} is answered with {other:?}"));
                return None;
            }
            Ok(Err(_)) | Err(NoAnswer) => {
                let pause = town.sim.dice(|dice| dice.millis(200, 10_000));
                sleep(pause).await;
            }
        }
    }
    None
}

/// As `api::creation` does it.
async fn create(new: NewSong, ports: Ports) -> Result<Birth, CommitError> {
    let living = actix::spawn(async move {
        let song = new.song.clone();
        let committed = ports.world.journal.commit(Entry::Create(Box::new(new))).await?;
        let Committed::Birth { birth, .. } = committed else { return Err(CommitError::Away) };
        if matches!(birth, Birth::Created { .. }) {
            ports.directories.of(song.id).do_send(Born { song: Box::new(song), beginning: None });
        }
        Ok(birth)
    });
    living.await.unwrap_or(Err(CommitError::Away))
}

fn new_song(ports: &Ports, user: &UserId, key: &str, wish: &Wish) -> NewSong {
    let now = ports.life.clock.now();
    let (id, task, grant) =
        ports.sim.with(|state, _| (state.dice.uuid(), state.dice.uuid(), state.plan.grant));
    let song = Song::pending(SongId(id), user.clone(), wish.clone(), json!({}), TaskId(task), now);
    let set = view::changes(None, &song, &rules());
    NewSong {
        set,
        song,
        idempotency_key: Some(key.to_owned()),
        content_hash: [7; 32],
        terms: Terms {
            plans: Arc::new(plans()),
            plan: None,
            grant: Credits::from_thousandths(grant),
            refuse_when_busy: false,
        },
    }
}

fn a_wish(dice: &mut Dice) -> Wish {
    let mode = dice.pick(&[Mode::LyricsFirst, Mode::Music, Mode::Music]);
    let variants = dice.pick(&[2, 2, 1, 3]);
    let kind = if mode == Mode::LyricsFirst { TaskKind::Lyrics } else { TaskKind::Generate };
    let able: Vec<_> = all().into_iter().filter(|able| able.kinds.contains(&kind)).collect();
    let first = usize::try_from(dice.below(able.len() as u64)).expect("few");
    let calls =
        |index: usize| Calls { lyrics: able[index].lyrics_calls(), music: able[index].music_calls(variants) };
    let others = (0..able.len()).filter(|index| *index != first && dice.percent(30));
    let other = |index: usize| Alternative {
        provider: able[index].name.to_owned(),
        calls: calls(index),
        model: None,
    };
    let alternatives = others.collect::<Vec<_>>().into_iter().map(other).collect();
    let free = dice.percent(15);
    let price = |thousandths| Credits::from_thousandths(if free { 0 } else { thousandths });
    Wish {
        mode,
        title: None,
        prompt: Some("a waltz".to_owned()),
        lyrics: None,
        options: MusicOptions::default(),
        provider: able[first].name.to_owned(),
        work: Work::Generate,
        parent_ids: Vec::new(),
        variants,
        calls: calls(first),
        preview: false,
        prices: Prices { lyrics: price(100), music: price(1000) },
        share_tokens: (0..5).map(|_| ShareToken(dice.uuid())).collect(),
        plan: None,
        variations: Vec::new(),
        alternatives,
        left: Vec::new(),
    }
}

/// Looks at a song now and then, and does what its owner may.
async fn look_after(town: Town, user: UserId, song: SongId) {
    loop {
        let pause = town.sim.dice(|dice| dice.millis(500, 40_000));
        sleep(pause).await;
        let Some(known) = town.sim.lock().tables.load(song).map(|stored| stored.song) else { continue };
        if !town.in_trouble() && known.runs().next().is_none() {
            return;
        }
        if let Some(event) = town.sim.with(|state, _| wanted(&mut state.dice, state.faults.fickle, &known)) {
            let told = tell(&town, &user, song, event).await;
            if let Ok(Ok(told)) = told {
                town.sim.lock().law.answered(&told.song);
            }
        }
        if known.phase == Phase::Deleted {
            return;
        }
    }
}

async fn tell(
    town: &Town,
    user: &UserId,
    song: SongId,
    event: Event,
) -> Result<Result<Told, TellError>, NoAnswer> {
    town.sim.note(|| format!("{user} wants {event:?} of {song}"));
    let (machine, by) = (town.any(), Some(user.clone()));
    let told = machine
        .request(PATIENCE, |ports| async move { ports.directories.tell(song, by, event, None).await })
        .await;
    town.sim.note(|| {
        let told = told.as_ref().map(|told| told.as_ref().map(|told| told.changed));
        format!("{user} is told of {song}: {told:?}")
    });
    told
}

fn wanted(dice: &mut Dice, fickle: bool, song: &Song) -> Option<Event> {
    let whim = dice.below(100);
    if fickle && whim < 8 {
        return Some(Event::Cancelled);
    }
    if fickle && whim < 11 {
        return Some(Event::Deleted);
    }
    match &song.phase {
        Phase::LyricsReady if whim < 80 => {
            let choice = match dice.percent(80) {
                true => Choice::Variant(i16::try_from(dice.below(3)).expect("small")),
                false => Choice::Text { text: "my own".to_owned(), title: Some("Mine".to_owned()) },
            };
            Some(Event::Chosen { choice, task: TaskId(dice.uuid()), unable: Vec::new() })
        }
        Phase::Failed(_) if fickle && whim < 60 => Some(Event::Retried {
            task: TaskId(dice.uuid()),
            prompt: dice.percent(60).then(|| format!("words {whim}")),
            lyrics: None,
            unable: Vec::new(),
        }),
        Phase::Ready | Phase::Complete if whim < 30 => Some(Event::Viewed),
        Phase::Ready | Phase::Complete if fickle && whim < 50 => Some(addition(dice, song)),
        Phase::Ready | Phase::Complete if whim < 60 => Some(match dice.percent(80) {
            true => Event::Selected { variant_number: 1, selected: dice.percent(70) },
            false => Event::Unshared { variant_number: 1, share_token: ShareToken(dice.uuid()) },
        }),
        Phase::Lyrics(_)
        | Phase::LyricsReady
        | Phase::Music(_)
        | Phase::Ready
        | Phase::Complete
        | Phase::Failed(_)
        | Phase::Cancelled
        | Phase::Deleted => None,
    }
}

fn addition(dice: &mut Dice, song: &Song) -> Event {
    let of = SourceClip {
        song: song.id,
        variant_number: 1,
        provider: "suno".to_owned(),
        provider_task: Some("t".to_owned()),
        clip_id: Some("c".to_owned()),
        audio_url: None,
        duration_ms: None,
        model: None,
        title: None,
        lyrics: None,
        style_tags: Vec::new(),
        instrumental: false,
    };
    let work = match dice.below(3) {
        0 => Work::Stems { of },
        1 => Work::Video { of },
        _ => Work::Persona { of, name: "Voice".to_owned(), description: "low".to_owned() },
    };
    let price = Credits::from_thousandths(dice.pick(&[0, 500]));
    let task = TaskId(dice.uuid());
    Event::Asked { addition: Box::new(NewAddition { task, provider: "suno".to_owned(), work, price }) }
}

// --- callbacks ---

/// Brings every letter at its time; one that is not taken is brought again a few times.
pub async fn carry(town: Town, mut letters: mpsc::UnboundedReceiver<Letter>) {
    while let Some(letter) = letters.recv().await {
        tokio::task::spawn_local(bring(town.clone(), letter));
    }
}

async fn bring(town: Town, letter: Letter) {
    tokio::time::sleep_until(letter.at).await;
    if is_final(&letter.news) {
        town.sim.lock().law.over(letter.key);
    }
    for pause in [1, 10, 30, 60] {
        let (machine, one) = (town.any(), letter.clone());
        let taken = machine.request(PATIENCE, |ports| hear(ports, one)).await;
        town.sim.note(|| {
            let told = taken.as_ref().map(|told| told.as_ref().map(|told| told.changed));
            format!("a callback for {} as {:?}: {:?}: {told:?}", letter.key, letter.task, letter.news)
        });
        match taken {
            Ok(Ok(_) | Err(TellError::NotFound)) => return,
            Ok(Err(_)) | Err(NoAnswer) => sleep(Duration::from_secs(pause)).await,
        }
    }
}

/// As `callback` does it.
async fn hear(ports: Ports, letter: Letter) -> Result<Told, TellError> {
    let Letter { provider, key, task, news, .. } = letter;
    let song = ports.sim.lock().tables.song_of_task.get(&key.task).copied();
    let body = format!("{task:?} {news:?}");
    let row = InboxRow {
        provider,
        task: key.task.0,
        call: key.call,
        attempt: key.attempt,
        body: bytes::Bytes::from(body),
        outcome: "applied",
    };
    let news = with_fallback_urls(news, ports.world.providers.member(provider));
    let event = Event::News { call: key, provider_task: task, news };
    ports.directories.tell(song.ok_or(TellError::NotFound)?, None, event, Some(row)).await
}
