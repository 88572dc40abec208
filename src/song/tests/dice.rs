//! Chance for histories: seeded, recorded, and replayable with parts left out, so that a history that
//! breaks a law can be cut down to what matters. A 0 is always the plain choice.

pub(super) struct Dice {
    state: u64,
    script: Option<Vec<u32>>,
    thrown: Vec<u32>,
    notes: Option<Vec<String>>,
}

impl Dice {
    fn seeded(seed: u64) -> Self {
        let state = seed.wrapping_mul(0x2545_f491_4f6c_dd1d) ^ 0x1234_5678;
        Self { state, script: None, thrown: Vec::new(), notes: None }
    }

    /// Throws what stands there, then only zeros.
    fn scripted(script: Vec<u32>) -> Self {
        Self { state: 0, script: Some(script), thrown: Vec::new(), notes: None }
    }

    fn throw(&mut self) -> u32 {
        let number = match &self.script {
            Some(script) => script.get(self.thrown.len()).copied().unwrap_or(0),
            None => {
                self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
                let mut x = self.state;
                x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
                x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
                (x >> 32) as u32
            }
        };
        self.thrown.push(number);
        number
    }

    /// Tells a step of the history, where somebody reads it.
    pub(super) fn note(&mut self, line: impl FnOnce() -> String) {
        if let Some(notes) = &mut self.notes {
            notes.push(line());
        }
    }

    /// Below `n`.
    pub(super) fn below(&mut self, n: u32) -> u32 {
        self.throw() % n.max(1)
    }

    pub(super) fn percent(&mut self, chance: u32) -> bool {
        self.below(100) >= 100 - chance.min(100)
    }

    pub(super) fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(u32::try_from(from.len()).expect("a short list")) as usize]
    }
}

/// Runs histories of seeds `0..cases`; one that breaks a law is cut down and shown.
pub(super) fn histories(cases: u64, run: impl Fn(&mut Dice) -> Result<(), String>) {
    for seed in 0..cases {
        let mut dice = Dice::seeded(seed);
        let Err(broken) = run(&mut dice) else { continue };
        let script = cut_down(&run, dice.thrown);
        let mut dice = Dice { notes: Some(Vec::new()), ..Dice::scripted(script.clone()) };
        let least = run(&mut dice).err().unwrap_or_default();
        let history = dice.notes.unwrap_or_default().join("\n");
        panic!("seed {seed}: {broken}\ncut down to {script:?}: {least}\n{history}");
    }
}

/// Leaves out and zeroes whatever is not needed to break a law.
fn cut_down(run: &impl Fn(&mut Dice) -> Result<(), String>, mut script: Vec<u32>) -> Vec<u32> {
    let breaks = |script: &[u32]| run(&mut Dice::scripted(script.to_vec())).is_err();
    for size in [64, 16, 4, 2, 1] {
        let mut at = 0;
        while at < script.len() {
            let end = (at + size).min(script.len());
            let shorter = [&script[..at], &script[end..]].concat();
            if breaks(&shorter) {
                script = shorter;
                continue;
            }
            let mut plainer = script.clone();
            plainer[at..end].fill(0);
            if breaks(&plainer) {
                script = plainer;
            }
            at += size;
        }
    }
    script
}
