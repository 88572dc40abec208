//! A song and its tasks as rows: what a step writes to them, and the song as it reads again (`store::songs`).

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::value::RawValue;
use serde_json::{Map, Value};
use songflight::credit::Credits;
use songflight::id::{TaskId, UserId};
use songflight::provider::failure::{Class, Failure};
use songflight::song::event::EventKind;
use songflight::song::parts::{Makes, TaskKind, Work};
use songflight::song::phase::{
    Addition, AdditionState, Head, LyricsVariant, Phase, Progress, Push, Run, Song, Status, Variant,
};
use songflight::song::wish::Wish;
use songflight::store::journal::{NodeKey, Owner};
use songflight::store::row::{Library, NewSong, StepRow};
use songflight::time::Time;

pub struct SongRow {
    pub key: Option<String>,
    pub hash: [u8; 32],
    wish: Arc<Wish>,
    metadata: Arc<Value>,
    pub user: UserId,
    created_at: Time,
    pub library: Library,
    pub tasks: Vec<TaskRow>,
    lyrics_variants: BTreeMap<i16, LyricsVariant>,
    variants: BTreeMap<i16, Variant>,
    pub pushes: Vec<String>,
    /// By their numbers, but for the first.
    pub events: BTreeMap<i64, (EventKind, Map<String, Value>)>,
    /// The whole, as it reads.
    pub song: Song,
}

pub struct TaskRow {
    pub id: TaskId,
    number: i16,
    kind: TaskKind,
    provider: String,
    price: Credits,
    pub owner: NodeKey,
    pub version: i64,
    pub seq: i64,
    pub run: Option<Value>,
    pub progress: Value,
    beside: bool,
    pub addition: Option<Value>,
    updated_at: Time,
}

#[derive(Deserialize)]
pub struct FurtherTask {
    pub id: TaskId,
    number: i16,
    kind: TaskKind,
    provider: String,
    price: Credits,
    pub run: Option<Value>,
    progress: Value,
    pub addition: Option<Value>,
}

#[derive(Deserialize)]
struct Besides {
    work: Work,
    ended: Option<AdditionState>,
}

/// A value of a column that the program wrote.
pub fn json<T: DeserializeOwned>(value: &Value) -> T {
    T::deserialize(value).unwrap_or_else(|error| panic!("what was written does not read: {error}: {value}"))
}

/// The same as it was sent.
pub fn read<T: DeserializeOwned>(column: &RawValue) -> T {
    let text = column.get();
    serde_json::from_str(text).unwrap_or_else(|error| panic!("what was sent does not read: {error}: {text}"))
}

impl TaskRow {
    pub fn owner(&self) -> Owner {
        Owner { node: self.owner.id, epoch: self.owner.epoch, activations: 0 }
    }

    /// Whether it is of this node's process, or of the one that it goes on for.
    pub fn is_of(&self, node: NodeKey) -> bool {
        node.owns(self.owner())
    }
}

impl SongRow {
    pub fn new(new: &NewSong, node: NodeKey) -> Self {
        let song = &new.song;
        let head = &song.head;
        let progress = song.progress(head.kind).cloned().unwrap_or_default();
        let task = TaskRow {
            id: head.task,
            number: 1,
            kind: head.kind,
            provider: head.provider.clone(),
            price: head.price,
            owner: node,
            version: 1,
            seq: 1,
            run: song.phase.run().map(|run| serde_json::json!(run)),
            progress: serde_json::json!(progress),
            beside: false,
            addition: None,
            updated_at: song.created_at,
        };
        let library = Library {
            status: Status::Pending,
            wish: None,
            title: song.title.clone(),
            lyrics: song.lyrics.clone(),
            error: None,
            cost: head.price,
            refunded: Credits::ZERO,
            retries: Vec::new(),
            viewed: None,
            deleted: None,
        };
        let mut row = Self {
            key: new.idempotency_key.clone(),
            hash: new.content_hash,
            wish: Arc::new(json(&serde_json::json!(*song.wish))),
            metadata: song.metadata.clone(),
            user: song.user.clone(),
            created_at: song.created_at,
            library,
            tasks: vec![task],
            lyrics_variants: BTreeMap::new(),
            variants: BTreeMap::new(),
            pushes: Vec::new(),
            events: BTreeMap::new(),
            song: song.clone(),
        };
        row.song = row.read();
        row
    }

    pub fn head(&self) -> &TaskRow {
        let heads = self.tasks.iter().filter(|task| !task.beside);
        heads.max_by_key(|task| task.number).expect("a song has a first task")
    }

    pub fn has_running_task(&self) -> bool {
        self.tasks.iter().any(|task| task.run.is_some())
    }

    /// Its paid tasks, and whether each is under way.
    pub fn paid_tasks(&self) -> impl Iterator<Item = (TaskId, bool)> {
        let paid = self.tasks.iter().filter(|task| task.price != Credits::ZERO);
        paid.map(|task| (task.id, task.run.is_some()))
    }

    pub fn write(&mut self, row: &StepRow, node: NodeKey) {
        let task = self.tasks.iter_mut().find(|task| task.id == row.head).expect("it may move");
        task.version += 1;
        task.owner.epoch = node.epoch;
        task.seq = row.seq;
        assert!(task.run.is_some() || row.run.is_none(), "a task that is over runs no more");
        task.run = row.run.as_deref().map(read);
        task.progress = read(&row.progress);
        if let Some(provider) = &row.provider {
            task.provider.clone_from(provider);
        }
        if let Some(event) = &row.event {
            task.updated_at = row.at;
            self.events.insert(row.seq, (event.0, read(&event.1)));
        }
        if let Some(library) = &row.library {
            self.library = library.clone();
            if let Some(wish) = &self.library.wish {
                self.wish = Arc::new(json(&serde_json::json!(**wish)));
            }
        }
        for one in row.lyrics.iter().flat_map(|rows| read::<Vec<LyricsVariant>>(rows)) {
            self.lyrics_variants.insert(one.variant_index, one);
        }
        for one in &row.new_variants {
            let known = self.variants.insert(one.variant_number, one.clone());
            assert!(known.is_none(), "variant {} is new twice", one.variant_number);
        }
        for one in &row.changed_variants {
            let known = self.variants.insert(one.variant_number, one.clone());
            assert!(known.is_some(), "variant {} changed before there was one", one.variant_number);
        }
        if let Some(further) = &row.further_task {
            let (version, seq) = (row.version + 1, row.seq);
            self.tasks.push(TaskRow::new(read(further), node, version, seq, false, row.at));
        }
        for one in row.additions.iter().flat_map(|rows| read::<Vec<FurtherTask>>(rows)) {
            match self.tasks.iter_mut().find(|task| task.id == one.id) {
                Some(task) => {
                    (task.run, task.progress, task.addition) = (one.run, one.progress, one.addition);
                    task.updated_at = row.at;
                }
                None => self.tasks.push(TaskRow::new(one, node, 1, 1, true, row.at)),
            }
        }
    }

    /// As `store::songs` reads it.
    pub fn read(&self) -> Song {
        let head = self.head();
        let run = head.run.as_ref().map(json::<Run>);
        let newest = |lyrics: bool| {
            let of_kind = |task: &&TaskRow| !task.beside && (task.kind.makes() == Makes::Lyrics) == lyrics;
            let newest = self.tasks.iter().filter(of_kind).max_by_key(|task| task.number);
            newest.map(|task| json::<Progress>(&task.progress))
        };
        let mut beside: Vec<&TaskRow> = self.tasks.iter().filter(|task| task.beside).collect();
        beside.sort_by_key(|task| task.number);
        Song {
            id: self.song.id,
            user: self.user.clone(),
            wish: self.wish.clone(),
            metadata: self.metadata.clone(),
            phase: match (self.library.deleted, run) {
                (Some(_), _) => Phase::Deleted,
                (None, Some(run)) if head.kind.makes() == Makes::Lyrics => Phase::Lyrics(run),
                (None, Some(run)) => Phase::Music(run),
                (None, None) => self.resting_phase(),
            },
            head: Head {
                task: head.id,
                number: head.number,
                kind: head.kind,
                provider: head.provider.clone(),
                price: head.price,
            },
            lyrics_progress: newest(true),
            music_progress: newest(false),
            seq: head.seq,
            title: self.library.title.clone(),
            lyrics: self.library.lyrics.clone(),
            lyrics_variants: self.lyrics_variants.values().cloned().collect(),
            variants: self.variants.values().cloned().collect(),
            additions: beside.into_iter().map(TaskRow::addition).collect(),
            cost: self.library.cost,
            refunded: self.library.refunded,
            retries: self.library.retries.clone(),
            pushes: self.pushes.iter().filter_map(|push| Push::parse(push)).collect(),
            last_viewed_at: self.library.viewed,
            created_at: self.created_at,
            updated_at: head.updated_at,
        }
    }

    fn resting_phase(&self) -> Phase {
        match self.library.status {
            Status::LyricsReady => Phase::LyricsReady,
            Status::Ready => Phase::Ready,
            Status::Complete => Phase::Complete,
            Status::Cancelled => Phase::Cancelled,
            Status::Failed => {
                let none = || Failure::new(Class::Unknown, "no error was stored");
                Phase::Failed(self.library.error.clone().unwrap_or_else(none))
            }
            Status::Pending | Status::GeneratingLyrics | Status::GeneratingMusic => {
                panic!("song {} is {:?} but has no running task", self.song.id, self.library.status)
            }
        }
    }
}

impl TaskRow {
    fn new(new: FurtherTask, owner: NodeKey, version: i64, seq: i64, beside: bool, at: Time) -> Self {
        Self {
            id: new.id,
            number: new.number,
            kind: new.kind,
            provider: new.provider,
            price: new.price,
            owner,
            version,
            seq,
            run: new.run,
            progress: new.progress,
            beside,
            addition: new.addition,
            updated_at: at,
        }
    }

    fn addition(&self) -> Addition {
        let besides: Besides = json(self.addition.as_ref().expect("a task beside the head has one"));
        let run = self.run.as_ref().map(json).map(AdditionState::Running);
        Addition {
            task: self.id,
            number: self.number,
            provider: self.provider.clone(),
            work: besides.work,
            price: self.price,
            state: run.or(besides.ended).expect("it runs or has ended"),
            progress: json(&self.progress),
        }
    }
}
