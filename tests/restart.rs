//! The program with nothing configured, killed or stopped while songs are made, and started again.

use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use reqwest::Client;
use serde_json::{Value, json};
use tokio::time::{interval, timeout};

/// Longer than anything here takes, so that only a fault is waited out; less than a song's deadline.
const PATIENCE: Duration = Duration::from_secs(60);

#[actix_web::test]
async fn songs_go_on_after_the_program_was_killed_or_stopped() {
    let home = Home::new();
    let mut program = home.serve();
    let first = program.create("a waltz sim:slow=3s").await;
    program.until(&first, "task").await;
    program.kill();

    let mut program = home.serve();
    let made = program.until(&first, "ready").await;
    let second = program.create("another waltz sim:slow=3s").await;
    program.until(&second, "task").await;
    program.terminate();

    let mut program = home.serve();
    program.until(&second, "ready").await;
    for file in ["audio_url", "image_url"] {
        let url = made["variants"][0][file].as_str().expect("a url");
        let answer = program.client.get(url).send().await.expect("the simulator of the first start");
        assert_eq!(answer.status(), 200, "{url}");
    }

    // Without its database it is of no use, and says so.
    let third = program.create("a last waltz sim:slow=3s").await;
    program.until(&third, "task").await;
    home.kill_database();
    assert!(!program.ended().success());
    let log = fs::read_to_string(home.dir.join("log")).expect("the log");
    assert!(log.contains("the private database ended"), "{log}");
    let mut program = home.serve();
    program.until(&third, "ready").await;
    program.terminate();
    let log = fs::read_to_string(home.dir.join("log")).expect("the log");
    let (_, farewell) = log.rsplit_once("stopping:").expect("it said that it stops");
    for trouble in ["WARN", "ERROR", "57P01"] {
        assert!(!farewell.contains(trouble), "it went as it was told to: {farewell}");
    }
}

/// A folder, and the port that callbacks find the program at after every start.
struct Home {
    dir: PathBuf,
    port: u16,
}

impl Home {
    fn new() -> Self {
        let dir = std::env::temp_dir().join(format!("songflight-restart-{}", std::process::id()));
        fs::create_dir_all(&dir).expect("a folder");
        let free = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr());
        Self { dir, port: free.expect("a free port").port() }
    }

    /// Returns when it is up.
    fn serve(&self) -> Program {
        let log = File::options().create(true).append(true).open(self.dir.join("log")).expect("the log");
        let mut child = Command::new(env!("CARGO_BIN_EXE_songflight"))
            .arg("serve")
            .current_dir(&self.dir)
            .env_clear()
            .envs(std::env::var_os("PATH").map(|path| ("PATH", path)))
            .env("SONGFLIGHT_HTTP__BIND", format!("127.0.0.1:{}", self.port))
            .stdout(Stdio::piped())
            .stderr(log)
            .spawn()
            .expect("the program to run");
        let stdout = BufReader::new(child.stdout.take().expect("it is piped"));
        let (tell, token) = mpsc::channel();
        // Reads to the end, so that the program never waits for a reader.
        std::thread::spawn(move || {
            for line in stdout.lines().map_while(Result::ok) {
                if let Some((_, rest)) = line.split_once("Bearer ") {
                    let _ = tell.send(rest.trim_end_matches(['\'', '\\', ' ']).to_owned());
                }
            }
        });
        let Ok(token) = token.recv_timeout(PATIENCE) else {
            let _ = child.kill();
            panic!("it did not start: {}", fs::read_to_string(self.dir.join("log")).unwrap_or_default());
        };
        // An error says that one is installed already, which is what is wanted.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let client = Client::builder().no_proxy().timeout(PATIENCE).build().expect("a client");
        Program { child, token, client, origin: format!("http://127.0.0.1:{}", self.port) }
    }
}

impl Home {
    fn kill_database(&self) {
        let file =
            fs::read_to_string(self.dir.join(".songflight/postgres/postmaster.pid")).expect("its file");
        let id = file.lines().next().expect("its process id");
        assert!(Command::new("kill").args(["-KILL", id]).status().expect("kill runs").success());
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.dir);
    }
}

struct Program {
    child: Child,
    token: String,
    client: Client,
    origin: String,
}

impl Program {
    async fn create(&self, prompt: &str) -> String {
        let wanted = json!({"mode": "music", "title": "A Waltz", "prompt": prompt, "style_tags": ["waltz"]});
        let songs = self.client.post(format!("{}/v1/songs", self.origin));
        let answer = songs.bearer_auth(&self.token).json(&wanted).send().await.expect("an answer");
        assert!(answer.status().is_success(), "{}", answer.status());
        let song = answer.json::<Value>().await.expect("a song");
        song["id"].as_str().expect("its id").to_owned()
    }

    /// Asks until the song is `ready`, or has its provider's `task`.
    async fn until(&self, song: &str, what: &str) -> Value {
        let url = format!("{}/v1/songs/{song}", self.origin);
        let mut ask = interval(Duration::from_millis(20));
        let asked = async {
            loop {
                ask.tick().await;
                let answer = self.client.get(&url).bearer_auth(&self.token).send().await.expect("an answer");
                let song = answer.json::<Value>().await.expect("a song");
                assert_ne!(song["status"], "failed", "{song}");
                let reached = match what {
                    "task" => song["progress"]["music"]["provider_task_id"].is_string(),
                    status => song["status"] == status,
                };
                if reached {
                    return song;
                }
            }
        };
        timeout(PATIENCE, asked).await.unwrap_or_else(|_| panic!("the song never came to {what}"))
    }

    /// Waits until it ends by itself.
    fn ended(&mut self) -> ExitStatus {
        self.child.wait().expect("its end")
    }

    /// SIGKILL: it has no chance to say goodbye.
    fn kill(&mut self) {
        self.child.kill().expect("it runs");
        self.child.wait().expect("its end");
    }

    /// SIGTERM, as a supervisor stops it.
    fn terminate(&mut self) {
        let told = Command::new("kill").arg("-TERM").arg(self.child.id().to_string()).status();
        assert!(told.expect("kill").success());
        assert!(self.child.wait().expect("its end").success());
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // After a failed assertion; otherwise it has ended, which the error says.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
