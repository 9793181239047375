//! Command line of the emulated hardware: make it, make its firmware file, serve a VM, stand in for QEMU.

use anyhow::{Context, Result};
use clap::{Args, Parser, Subcommand};
use nix::sys::signal::{SigSet, Signal, kill};
use nix::unistd::Pid;
use sealpod_emulator::firmware::{self, Firmware};
use sealpod_emulator::measure::{BootFiles, CpuModel, HashTable, Launch as Measured};
use sealpod_emulator::sev::{self, front};
use sealpod_emulator::snp::server::Listener;
use sealpod_emulator::snp::{
    AUTHORITY_BITS, Fault, KeyKind, Launch, Processor, Product, Tcb, faults, id_block,
};
use sealpod_emulator::state::{State, add_pef, add_sev, initialise};
use sealpod_emulator::ultravisor::{self, Launched, Ultravisor};
use std::ffi::OsString;
use std::fs;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::thread;
use std::time::SystemTime;

/// Software AMD secure processor and Power ultravisor for machines without the hardware. For tests and
/// demonstrations: what it vouches for is trusted only by a broker whose configuration names its root.
#[derive(Parser)]
#[command(name = "sealpod-emulator", version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Make a processor: chip, root, signing key and certificates.
    Init {
        /// The directory to make it in.
        #[arg(long)]
        state: PathBuf,
        /// Milan, Genoa or Turin.
        #[arg(long, default_value = "Milan")]
        product: Product,
        /// Also for SEV and SEV-ES guests.
        #[arg(long)]
        sev: bool,
        /// Also for Power PEF: a TPM key.
        #[arg(long)]
        pef: bool,
    },
    /// Open an ESM blob as this machine's ultravisor would at a VM's start, and list its files.
    Esm(Esm),
    /// Write the OVMF-shaped file that emulated launches measure in place of OVMF.
    Firmware {
        /// The file to write.
        #[arg(long)]
        out: PathBuf,
    },
    /// Print the launch digest that `serve` would report for these files.
    Measure(Boot),
    /// List what `--fault` can do wrong.
    Faults,
    /// Stand in for QEMU with an SEV or SEV-ES guest: everything behind `--` is QEMU's command line.
    SevQemu(SevQemu),
    /// Be the processor of one VM, until SIGTERM or until standard input ends.
    Serve(Box<Serve>),
}

/// What QEMU boots.
#[derive(Args)]
struct Boot {
    /// The firmware file.
    #[arg(long)]
    firmware: PathBuf,
    /// QEMU's -kernel.
    #[arg(long)]
    kernel: PathBuf,
    /// QEMU's -initrd.
    #[arg(long)]
    initrd: PathBuf,
    /// A file with QEMU's -append, without a line end.
    #[arg(long)]
    append_file: PathBuf,
    /// QEMU's -smp.
    #[arg(long)]
    vcpus: u32,
    /// The CPU model that the launch declares, by QEMU's name.
    #[arg(long)]
    cpu_model: CpuModel,
    /// SEV_FEATURES of the virtual processors, in hexadecimal.
    #[arg(long, value_parser = hexadecimal, default_value = "1")]
    guest_features: u64,
}

#[derive(Args)]
struct Serve {
    #[command(flatten)]
    boot: Boot,
    /// The directory that `init` made.
    #[arg(long)]
    state: PathBuf,
    /// The unix socket on which vsock port 4051 of the guest arrives: `<vm socket>_4051`.
    #[arg(long)]
    listen: PathBuf,
    /// HOST_DATA: SHA-256 of the initdata.
    #[arg(long, value_parser = bytes::<32>)]
    host_data: Bytes<32>,
    /// Guest policy, in hexadecimal; checked as the firmware does.
    #[arg(long, value_parser = hexadecimal, default_value = "30000")]
    policy: u64,
    /// Reported TCB, for which the chip's key is certified.
    #[arg(long, default_value_t)]
    tcb: Tcb,
    /// Committed TCB [default: as --tcb].
    #[arg(long)]
    committed_tcb: Option<Tcb>,
    /// TCB at launch [default: as --tcb].
    #[arg(long)]
    launch_tcb: Option<Tcb>,
    /// Privilege level at which the guest runs.
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u32).range(..=3))]
    vmpl: u32,
    /// Version of the reports: 2, 3 or 5.
    #[arg(long, default_value_t = 3)]
    report_version: u32,
    /// Which key signs reports: vcek or vlek.
    #[arg(long, default_value = "vcek")]
    signing_key: KeyKind,
    /// PLATFORM_INFO, in hexadecimal: SMT 0, TSME 1, ECC 2, RAPL off 3, ciphertext hiding 4, alias check 5.
    #[arg(long, value_parser = hexadecimal, default_value = "25")]
    platform_info: u64,
    /// Mitigations in force, in hexadecimal; version 5.
    #[arg(long, value_parser = hexadecimal, default_value = "0")]
    mitigations: u64,
    /// The owner's ID block, 96 bytes.
    #[arg(long, requires = "id_auth")]
    id_block: Option<PathBuf>,
    /// Who signed it, 4096 bytes.
    #[arg(long, requires = "id_block")]
    id_auth: Option<PathBuf>,
    /// What goes wrong, NAME or NAME=VALUE; may be given several times. `sealpod-emulator faults` lists them.
    #[arg(long = "fault", value_name = "FAULT")]
    faults: Vec<Fault>,
}

#[derive(Args)]
struct Esm {
    /// The directory that `init --pef` made.
    #[arg(long)]
    state: PathBuf,
    /// The kernel as a flat binary.
    #[arg(long)]
    kernel: PathBuf,
    /// The initrd as `svm add` leaves it: an archive with the blob first.
    #[arg(long)]
    initrd: PathBuf,
    /// A file with the kernel's command line, without a line end.
    #[arg(long)]
    append_file: PathBuf,
}

#[derive(Args)]
struct SevQemu {
    /// The directory that `init --sev` made.
    #[arg(long)]
    state: PathBuf,
    /// The real QEMU.
    #[arg(long, default_value = "qemu-system-x86_64")]
    qemu: PathBuf,
    /// The CPU model of SEV-ES guests' processors, by QEMU's name.
    #[arg(long)]
    cpu_model: CpuModel,
    /// What goes wrong, NAME or NAME=VALUE; may be given several times. `sealpod-emulator faults` lists them.
    #[arg(long = "fault", value_name = "FAULT")]
    faults: Vec<sev::Fault>,
    /// QEMU's words.
    #[arg(last = true)]
    words: Vec<OsString>,
}

fn main() -> ExitCode {
    match run(Arguments::parse().command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("sealpod-emulator: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command) -> Result<()> {
    match command {
        Command::Init { state, product, sev, pef } => {
            initialise(&state, product, AUTHORITY_BITS, SystemTime::now())?;
            if sev {
                add_sev(&state, AUTHORITY_BITS)?;
            }
            if pef {
                add_pef(&state)?;
            }
            println!("emulated {} processor in {}", product.name(), state.display());
            println!("brokers that shall trust it say in their configuration:\n[trust]");
            let roots = [
                (true, "emulated_roots", "ark.pem"),
                (sev, "emulated_sev_arks", "sev-ask-ark.cert"),
                (pef, "emulated_tpm_keys", "tpm.pem"),
            ];
            for (_, key, file) in roots.into_iter().filter(|(made, ..)| *made) {
                println!("{key} = [{:?}]", state.join(file));
            }
            Ok(())
        }
        Command::Firmware { out } => {
            fs::write(&out, firmware::generate()).with_context(|| format!("writing {}", out.display()))
        }
        Command::Measure(boot) => {
            println!("{}", hex::encode(measure(&boot)?));
            Ok(())
        }
        Command::Faults => {
            println!("SEV-SNP (serve):");
            for known in faults::KNOWN {
                let value = known.value.map(|value| format!("=<{value}>")).unwrap_or_default();
                println!("{}{value}\n    {}", known.name, known.meaning);
            }
            println!("SEV and SEV-ES (sev-qemu):");
            for (name, meaning) in sev::faults::KNOWN {
                println!("{name}\n    {meaning}");
            }
            println!("Power PEF (the library's Ultravisor::launch_with):");
            for (name, meaning) in ultravisor::KNOWN {
                println!("{name}\n    {meaning}");
            }
            Ok(())
        }
        Command::SevQemu(options) => sev_qemu(options),
        Command::Esm(options) => esm(&options),
        Command::Serve(options) => serve(*options),
    }
}

fn measure(boot: &Boot) -> Result<[u8; 48]> {
    let firmware = Firmware::parse(read(&boot.firmware)?)?;
    let files = BootFiles { kernel: &boot.kernel, initrd: &boot.initrd, command_line: &boot.append_file };
    let hashes = HashTable::of_files(&files)?;
    let launch = Measured {
        firmware: &firmware,
        hashes: &hashes,
        vcpus: boot.vcpus,
        cpu: boot.cpu_model,
        guest_features: boot.guest_features,
    };
    Ok(launch.digest()?)
}

fn esm(options: &Esm) -> Result<()> {
    let tpm = State::load(&options.state)?.tpm.with_context(|| {
        format!("{} has no TPM key; make one with `sealpod-emulator init --pef`", options.state.display())
    })?;
    let (kernel, initrd, bootargs) =
        (read(&options.kernel)?, read(&options.initrd)?, read(&options.append_file)?);
    let launched = Launched { kernel: &kernel, initrd: &initrd, bootargs: &bootargs };
    for (name, length) in Ultravisor::launch_from_initrd(&tpm, &launched)?.files() {
        println!("{name} {length}");
    }
    Ok(())
}

fn sev_qemu(options: SevQemu) -> Result<()> {
    let State { chip, sev, .. } = State::load(&options.state)?;
    let published = sev.with_context(|| {
        format!("{} is not for SEV; make one with `sealpod-emulator init --sev`", options.state.display())
    })?;
    let platform = sev::Platform::new(&chip, published);
    let SevQemu { qemu, cpu_model: cpu, faults, words, .. } = options;
    Ok(front::run(front::Options { platform, qemu, cpu, faults }, words)?)
}

fn serve(options: Serve) -> Result<()> {
    // Before any thread starts, so that all of them leave these signals to the wait below.
    let stop = SigSet::from_iter([Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP]);
    stop.thread_block().context("blocking signals")?;

    let measurement = measure(&options.boot)?;
    let identity = match (&options.id_block, &options.id_auth) {
        (Some(block), Some(authentication)) => {
            Some(id_block::check(&read(block)?, &read(authentication)?, &measurement, options.policy)?)
        }
        _ => None,
    };
    let state = State::load(&options.state)?;
    let mut report_id = [0; 32];
    getrandom::fill(&mut report_id).context("reading random numbers")?;
    let launch = Launch {
        policy: options.policy,
        measurement,
        host_data: options.host_data.0,
        report_id,
        vmpl: options.vmpl,
        reported_tcb: options.tcb,
        committed_tcb: options.committed_tcb.unwrap_or(options.tcb),
        launch_tcb: options.launch_tcb.unwrap_or(options.tcb),
        identity,
        report_version: options.report_version,
        signing_key: options.signing_key,
        platform_info: options.platform_info,
        mitigations: [options.mitigations; 2],
    };
    let State { chip, authorities, .. } = state;
    let processor = Processor::launch(chip, launch, options.faults, &authorities, SystemTime::now())?;

    let listener = Listener::bind(&options.listen)?;
    listener.serve(&Arc::new(processor)).context("starting the server's thread")?;
    thread::Builder::new()
        .name("stdin".to_owned())
        .spawn(stop_with_stdin)
        .context("watching standard input")?;
    eprintln!("emulated launch, digest {}", hex::encode(measurement));
    println!("ready");
    io::stdout().flush().context("writing to standard output")?;
    stop.wait().context("waiting for a signal")?;
    Ok(())
}

fn read(path: &Path) -> Result<Vec<u8>> {
    fs::read(path).with_context(|| format!("reading {}", path.display()))
}

/// Whoever started this process holds the other end of its standard input; when that is gone, so is the VM.
fn stop_with_stdin() {
    let mut stdin = io::stdin().lock();
    let mut ignored = [0; 256];
    loop {
        match stdin.read(&mut ignored) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Ok(0) | Err(_) => break,
            Ok(_) => {}
        }
    }
    let _ = kill(Pid::this(), Signal::SIGTERM);
}

#[derive(Clone)]
struct Bytes<const N: usize>([u8; N]);

fn bytes<const N: usize>(text: &str) -> Result<Bytes<N>, String> {
    let mut value = [0; N];
    hex::decode_to_slice(text, &mut value).map_err(|_| format!("expected {} hexadecimal digits", 2 * N))?;
    Ok(Bytes(value))
}

fn hexadecimal(text: &str) -> Result<u64, String> {
    u64::from_str_radix(text.strip_prefix("0x").unwrap_or(text), 16)
        .map_err(|_| "expected a hexadecimal number".to_owned())
}
