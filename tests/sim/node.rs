//! One machine: its program runs, dies, and is started again. All that a run of the program does happens in a set of
//! tasks of its own, which is dropped as it stands when the program dies, and not polled while it is stopped.

use std::cell::{Cell, RefCell};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::Poll;
use std::time::Duration;

use songflight::cluster::{self, Node};
use songflight::credit::seats::Seats;
use songflight::song::actor::World;
use songflight::song::directory::Directories;
use songflight::song::recovery;
use songflight::store::database::Database;
use songflight::store::journal::{Journal, Settings};
use songflight::store::pool;
use tokio::sync::oneshot;
use tokio::task::LocalSet;
use tokio::time::{sleep, timeout};
use uuid::Uuid;

use super::database::Way;
use super::plan::{CALL_TIMEOUT, HEARTBEAT, LEASE, plans, rules};
use super::provider;
use super::sim::{Life, Sim};

/// A machine, whatever runs on it at the moment.
pub struct Machine {
    number: usize,
    sim: Sim,
    run: RefCell<Option<Rc<Run>>>,
    /// The node that ran here last (`app::folder`).
    former: Rc<Cell<Option<Uuid>>>,
}

/// One run of the program.
struct Run {
    life: Arc<Life>,
    tasks: RefCell<Option<LocalSet>>,
    ports: RefCell<Option<Ports>>,
}

/// What the doors of a node hold.
#[derive(Clone)]
pub struct Ports {
    pub world: Arc<World>,
    pub directories: Directories,
    pub sim: Sim,
    pub life: Arc<Life>,
    node: Node,
    database: Arc<dyn Database>,
}

/// The machine is down, its program died over the request, or it took too long.
#[derive(Debug)]
pub struct NoAnswer;

impl Machine {
    pub fn new(number: usize, sim: &Sim) -> Rc<Self> {
        Rc::new(Self { number, sim: sim.clone(), run: RefCell::new(None), former: Rc::default() })
    }

    /// Runs the program again and again, for ever.
    pub async fn keep_running(self: Rc<Self>) {
        loop {
            let life = Life::new(self.number, self.sim.a_clock());
            let run = Rc::new(Run {
                life: life.clone(),
                tasks: RefCell::new(Some(LocalSet::new())),
                ports: RefCell::new(None),
            });
            run.spawn(program(self.sim.clone(), run.clone(), self.former.clone()));
            *self.run.borrow_mut() = Some(run.clone());
            run.drive().await;
            let down = self.sim.dice(|dice| dice.millis(0, 20_000));
            self.sim.note(|| format!("node {} is down for {down:?}", self.number));
            sleep(down).await;
        }
    }

    pub fn life(&self) -> Option<Arc<Life>> {
        self.run.borrow().as_ref().map(|run| run.life.clone())
    }

    /// Ends it for good, with all that it still had to do.
    pub fn end(&self) {
        if let Some(run) = self.run.borrow_mut().take() {
            run.life.die();
            run.fall();
        }
    }

    /// Does something in the node, as a request's handler does.
    pub async fn request<T: 'static, F: Future<Output = T> + 'static>(
        &self,
        patience: Duration,
        handler: impl FnOnce(Ports) -> F,
    ) -> Result<T, NoAnswer> {
        let run = self.run.borrow().clone().ok_or(NoAnswer)?;
        let ports = run.ports.borrow().clone().ok_or(NoAnswer)?;
        let (answer, heard) = oneshot::channel();
        let handling = handler(ports);
        run.spawn(async move { drop(answer.send(handling.await)) });
        drop(run);
        timeout(patience, heard).await.map_err(|_| NoAnswer)?.map_err(|_| NoAnswer)
    }

    pub fn ports(&self) -> Option<Ports> {
        self.run.borrow().as_ref()?.ports.borrow().clone()
    }
}

impl Run {
    fn spawn(&self, task: impl Future<Output = ()> + 'static) {
        if let Some(tasks) = self.tasks.borrow().as_ref().filter(|_| self.life.is_alive()) {
            tasks.spawn_local(task);
        }
    }

    /// Lets the program run until it dies.
    async fn drive(&self) {
        let mut nap: Option<Pin<Box<tokio::time::Sleep>>> = None;
        std::future::poll_fn(|context| {
            loop {
                self.life.keep(context.waker());
                if !self.life.is_alive() {
                    return Poll::Ready(());
                }
                if let Some(until) = self.life.stopped_until() {
                    let mut sleeping = Box::pin(tokio::time::sleep_until(until));
                    if sleeping.as_mut().poll(context).is_pending() {
                        nap = Some(sleeping);
                        return Poll::Pending;
                    }
                }
                nap = None;
                if let Some(tasks) = self.tasks.borrow_mut().as_mut() {
                    // Its end would be the end of all tasks, and some never end.
                    let _ = Pin::new(tasks).poll(context);
                }
                if self.life.is_alive() && self.life.stopped_until().is_none() {
                    return Poll::Pending;
                }
            }
        })
        .await;
        drop(nap);
        self.fall();
    }

    /// Everything is gone as it stands.
    fn fall(&self) {
        *self.ports.borrow_mut() = None;
        let tasks = self.tasks.borrow_mut().take();
        drop(tasks);
    }
}

/// What `app.rs` builds, over the simulated world.
async fn program(sim: Sim, run: Rc<Run>, former_run: Rc<Cell<Option<Uuid>>>) {
    let life = run.life.clone();
    // Whether the machine remembers what ran on it.
    let former = former_run.get().filter(|_| sim.lock().plan.remembers);
    let way = Way { sim: sim.clone(), life: life.clone() };
    let settings = cluster::Settings { heartbeat: HEARTBEAT, lease: LEASE };
    let node = loop {
        match Node::enter(&way, "simulated", settings, life.clock, former).await {
            Ok(node) => break node,
            Err(_) => sleep(Duration::from_secs(1)).await,
        }
    };
    life.entered(node.key);
    former_run.set(Some(node.key.id));
    sim.note(|| format!("node {} runs as {}", life.number, node.key.id));
    let database: Arc<dyn Database> = Arc::new(way.clone());
    actix::spawn(node.clone().keep_alive(database.clone()));
    let watching = sim.clone();
    // Two writers, of which the second helps whenever anything waits for the first.
    let settings = Settings { help_at: 1, ..Settings::default() };
    let (journal, writers) = Journal::over(Arc::new(way), node.key, &settings, move |change| {
        watching.lock().law.told(node.key, &change);
    });
    writers.into_iter().for_each(|writer| drop(actix::spawn(writer)));
    let world = Arc::new(World {
        rules: rules(),
        clock: life.clock,
        journal,
        database: database.clone(),
        // The doors' way to Postgres: nobody in here asks it.
        pool: pool(tokio_postgres::Config::new(), 1).expect("a pool"),
        providers: provider::providers(&sim, &life),
        lease: node.lease.clone(),
        seats: Seats::default(),
        plans: plans(),
        // A simulated database counts no take-ups.
        activations_max: i16::MAX,
        reply_to: Box::new(|_, key| key.to_string()),
        call_timeout: CALL_TIMEOUT,
        calls: AtomicUsize::new(0),
        awake: AtomicUsize::new(0),
    });
    let directories = Directories::here(&world);
    actix::spawn(recovery::keep_taking_over(world.clone(), directories.clone(), || {}));
    *run.ports.borrow_mut() = Some(Ports {
        world,
        directories,
        sim: sim.clone(),
        life: life.clone(),
        node: node.clone(),
        database,
    });
    // As the service does: without its songs it ends, and is started anew.
    node.lease.lost().await;
    if life.leaving.load(Ordering::Acquire) {
        return;
    }
    sim.note(|| format!("node {} lost its songs", life.number));
    life.die();
}

impl Ports {
    /// Ends as the service does when it is asked to: no new calls, those under way end, the lease is given back.
    pub async fn leave(self) {
        self.life.leaving.store(true, Ordering::Release);
        self.node.lease.drain();
        let patience = tokio::time::Instant::now() + CALL_TIMEOUT + Duration::from_secs(1);
        while self.world.calls.load(Ordering::SeqCst) > 0 && tokio::time::Instant::now() < patience {
            sleep(Duration::from_millis(50)).await;
        }
        let faults = self.sim.lock().plan.faults;
        let blurred = faults.outage || faults.unknown || faults.slow || faults.deaf || faults.cut;
        if !blurred && self.world.calls.load(Ordering::SeqCst) == 0 {
            self.sim.with(|state, _| state.law.leaves(self.node.key, &state.tables));
        }
        self.node.leave(&*self.database).await;
        self.sim.note(|| format!("node {} has left", self.life.number));
        self.life.die();
    }

    /// What must be free once nothing is under way.
    pub fn is_idle(&self) -> Result<(), String> {
        let calls = self.world.calls.load(Ordering::SeqCst);
        if calls > 0 {
            return Err(format!("node {}: {calls} calls never ended", self.life.number));
        }
        for member in self.world.providers.members() {
            let (tasks, waiting) = (member.gate.tasks(), member.gate.waiting());
            if tasks + waiting > 0 {
                let name = member.provider.capabilities().name;
                return Err(format!(
                    "node {}: {tasks} places at {name} are held, {waiting} wait",
                    self.life.number
                ));
            }
        }
        Ok(())
    }
}
