//! Device rules: three enforcements that must agree. The program runs in an interpreter of eBPF, the writes go to a
//! model of v1's devices controller, and the same model is given the rules one by one as they were asked for.

mod common;

use croft_plan::cgroup::{CgroupHost, DeviceFilter};
use croft_plan::devices::{self, Access, Allowance, Filter, Insn, Kind, Nodes, Request, Rule, Verdict};
use oci_spec::runtime::LinuxDeviceCgroup;
use proptest::prelude::*;

/// The devices controller of the kernel (security/device_cgroup.c), for a group below the root.
struct Controller {
    allows_by_default: bool,
    exceptions: Vec<(char, String, String, String)>,
}

impl Controller {
    /// A group that was denied everything.
    fn denied() -> Controller {
        Controller { allows_by_default: false, exceptions: Vec::new() }
    }

    fn write(&mut self, file: &str, value: &str) {
        let allow = file == "devices.allow";
        let words: Vec<&str> = value.split([' ', ':']).collect();
        let &[kind, major, minor, access] = words.as_slice() else {
            assert_eq!(value, "a");
            *self = Controller { allows_by_default: allow, exceptions: Vec::new() };
            return;
        };
        let key = (kind.chars().next().unwrap_or('?'), major.to_owned(), minor.to_owned());
        let found = self.exceptions.iter().position(|(k, ma, mi, _)| (*k, ma, mi) == (key.0, &key.1, &key.2));
        match (allow != self.allows_by_default, found) {
            (true, Some(i)) => self.exceptions[i].3 += access,
            (true, None) => self.exceptions.push((key.0, key.1, key.2, access.to_owned())),
            (false, Some(i)) => self.exceptions[i].3.retain(|letter| !access.contains(letter)),
            (false, None) => {}
        }
    }

    fn permits(&self, request: Request) -> bool {
        let kind = if request.kind == Kind::Char { 'c' } else { 'b' };
        let (major, minor, asked) =
            (request.major.to_string(), request.minor.to_string(), request.access.to_string());
        let matches = |want: &str, have: &str| want == "*" || want == have;
        let mut of_node = self
            .exceptions
            .iter()
            .filter(|(k, ma, mi, _)| *k == kind && matches(ma, &major) && matches(mi, &minor));
        match self.allows_by_default {
            true => !of_node.any(|(.., access)| asked.chars().any(|letter| access.contains(letter))),
            false => of_node.any(|(.., access)| asked.chars().all(|letter| access.contains(letter))),
        }
    }
}

/// What the program answers.
fn run(program: &[Insn], request: Request) -> u64 {
    let kind = if request.kind == Kind::Char { 2 } else { 1 };
    let words = [u32::from(request.access.bits()) << 16 | kind, request.major, request.minor];
    let mut context: Vec<u8> = words.into_iter().flat_map(u32::to_ne_bytes).collect();
    // The interpreter starts with 0 as the answer; the kernel refuses a program that could return without one.
    let no_answer = Insn { code: 0xb4, dst: 0, src: 0, off: 0, imm: 77 };
    let program: Vec<u8> = [no_answer].iter().chain(program).flat_map(|insn| insn.to_bytes()).collect();
    let machine = rbpf::EbpfVmRaw::new(Some(&program)).expect("the program is well formed");
    machine.execute_program(&mut context).expect("the program runs")
}

fn with(filter: DeviceFilter) -> CgroupHost {
    CgroupHost { device_filter: filter, ..common::hybrid() }
}

fn check(rules: &[Rule], requests: &[Request]) -> Result<(), TestCaseError> {
    // Rules that punch holes are refused; the table test below has those.
    let Ok(allowance) = Allowance::of(rules) else { return Ok(()) };
    let mut as_asked = Controller::denied();
    for rule in rules {
        let (verdict, value) = match rule {
            Rule::Everything(verdict) => (verdict, "a".to_owned()),
            Rule::Some { verdict, nodes, access } => (verdict, format!("{nodes} {access}")),
        };
        as_asked.write(if *verdict == Verdict::Allow { "devices.allow" } else { "devices.deny" }, &value);
    }
    let v1 = devices::filter(&allowance, &with(DeviceFilter::NoEbpf)).expect("the host has v1's controller");
    let v2 = devices::filter(&allowance, &with(DeviceFilter::Ebpf)).expect("the host has eBPF");
    let mut written = Controller { allows_by_default: true, exceptions: Vec::new() };
    if let Filter::V1(writes) = &v1 {
        writes.iter().for_each(|write| written.write(&write.file, &write.value));
    }
    for request in requests {
        let permitted = allowance.permits(*request);
        prop_assert_eq!(permitted, as_asked.permits(*request), "as asked, {:?}", request);
        prop_assert_eq!(permitted, written.permits(*request), "v1, {:?}", request);
        let answer = match &v2 {
            Filter::Ebpf(program) => run(program, *request),
            other => {
                prop_assert_eq!(other, &Filter::Nothing);
                1
            }
        };
        prop_assert_eq!(u64::from(permitted), answer, "eBPF, {:?}", request);
    }
    Ok(())
}

/// Few numbers, so that rules and requests meet; and those at which a sign or a width could go wrong.
fn number() -> impl Strategy<Value = u32> {
    prop_oneof![4 => 0..4u32, 1 => Just(0x7fff_ffff), 1 => Just(0x8000_0000), 1 => Just(u32::MAX)]
}

fn kind() -> impl Strategy<Value = Kind> {
    prop_oneof![Just(Kind::Block), Just(Kind::Char)]
}

fn access() -> impl Strategy<Value = Access> {
    "[rwm]{1,3}".prop_map(|letters| Access::parse(&letters).expect("only r, w and m"))
}

fn verdict() -> impl Strategy<Value = Verdict> {
    prop_oneof![Just(Verdict::Allow), Just(Verdict::Deny)]
}

fn rule() -> impl Strategy<Value = Rule> {
    let nodes = (proptest::option::of(number()), proptest::option::of(number()), kind())
        .prop_map(|(major, minor, kind)| Nodes { major, minor, kind });
    let some = (verdict(), nodes, access()).prop_map(|(verdict, nodes, access)| Rule::Some {
        verdict,
        nodes,
        access,
    });
    prop_oneof![1 => verdict().prop_map(Rule::Everything), 9 => some]
}

fn request() -> impl Strategy<Value = Request> {
    (kind(), number(), number(), access()).prop_map(|(kind, major, minor, access)| Request {
        kind,
        major,
        minor,
        access,
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn program_writes_and_rules_agree(
        rules in proptest::collection::vec(rule(), 0..8),
        requests in proptest::collection::vec(request(), 1..20),
    ) {
        check(&rules, &requests)?;
    }

    #[test]
    fn so_they_do_with_the_defaults(
        rules in proptest::collection::vec(rule(), 0..3),
        requests in proptest::collection::vec(request(), 1..20),
    ) {
        let rules: Vec<Rule> = rules.into_iter().chain(devices::defaults([])).collect();
        check(&rules, &requests)?;
    }
}

fn allowance(json: &str) -> Result<Allowance, String> {
    let devices: Vec<LinuxDeviceCgroup> =
        serde_json::from_str(json).expect("the JSON is a list of device rules");
    devices::rules(&devices).and_then(|rules| Allowance::of(&rules)).map_err(|refusal| refusal.to_string())
}

#[test]
fn the_usual_spec_gives_what_runc_leaves_in_devices_list() {
    let json = r#"[{"allow":false,"access":"rwm"}]"#;
    let spec: Vec<LinuxDeviceCgroup> = serde_json::from_str(json).unwrap();
    let rules = devices::rules(&spec).unwrap().into_iter().chain(devices::defaults([]));
    let allowance = Allowance::of(&rules.collect::<Vec<_>>()).unwrap();
    let mut list: Vec<String> =
        allowance.exceptions().map(|(nodes, access)| format!("{nodes} {access}")).collect();
    list.sort();
    // Read from a container of runc 1.1.5.
    let of_runc = "b *:* m|c 10:200 rwm|c 136:* rwm|c 1:3 rwm|c 1:5 rwm|c 1:7 rwm|c 1:8 rwm|c 1:9 rwm|c 5:0 rwm|c 5:2 rwm";
    let mut of_runc: Vec<&str> = of_runc.split('|').chain(["c *:* m"]).collect();
    of_runc.sort_unstable();
    assert_eq!(list, of_runc);
    let Filter::V1(writes) = devices::filter(&allowance, &with(DeviceFilter::NoEbpf)).unwrap() else {
        panic!()
    };
    assert_eq!(writes[0].to_string(), "cgroup v1 devices: devices.deny = a");
    assert_eq!(writes[1].to_string(), "cgroup v1 devices: devices.allow = b *:* m");
}

#[test]
fn a_node_that_the_spec_makes_is_not_allowed_by_default() {
    let null = Request { kind: Kind::Char, major: 1, minor: 3, access: Access::READ };
    let zero = Request { minor: 5, ..null };
    let allowance = Allowance::of(&devices::defaults(["/dev/null"])).unwrap();
    assert!(!allowance.permits(null));
    assert!(allowance.permits(zero));
}

#[test]
fn the_program_in_words() {
    let json =
        r#"[{"allow":false,"access":"rwm"},{"allow":true,"type":"c","major":1,"minor":3,"access":"rw"}]"#;
    let Filter::Ebpf(program) = devices::filter(&allowance(json).unwrap(), &common::unified()).unwrap()
    else {
        panic!()
    };
    let listing: Vec<String> = program.iter().map(Insn::to_string).collect();
    let expected = [
        "r2 = *(u32 *)(r1 +0)",
        "w3 = w2",
        "w2 &= 0xffff",
        "w3 >>= 16",
        "r4 = *(u32 *)(r1 +4)",
        "r5 = *(u32 *)(r1 +8)",
        "if w2 != 2 goto +5",
        "if w4 != 1 goto +4",
        "if w5 != 3 goto +3",
        "if w3 & 0x1 goto +2",
        "w0 = 1",
        "exit",
        "w0 = 0",
        "exit",
    ];
    assert_eq!(listing, expected);
    // BPF_JMP32 | BPF_JNE: the interpreter does not extend a sign where the kernel's 64-bit jump does.
    assert_eq!(program[6].to_bytes(), [0x56, 2, 5, 0, 2, 0, 0, 0]);
}

#[test]
fn numbers_of_32_bits() {
    for number in [0x7fff_ffff, 0x8000_0000, u32::MAX] {
        let nodes = Nodes { major: Some(number), minor: Some(number), kind: Kind::Char };
        let rule = Rule::Some { verdict: Verdict::Allow, nodes, access: Access::ALL };
        let request = Request { kind: Kind::Char, major: number, minor: number, access: Access::READ };
        check(&[rule], &[request, Request { minor: number - 1, ..request }]).unwrap();
        assert!(Allowance::of(&[rule]).unwrap().permits(request));
    }
}

#[test]
fn all_allowed_needs_no_filter() {
    let json = r#"[{"allow":true,"access":"rwm"}]"#;
    assert_eq!(devices::filter(&allowance(json).unwrap(), &common::unified()).unwrap(), Filter::Nothing);
    let without_ebpf = CgroupHost { device_filter: DeviceFilter::NoEbpf, ..common::unified() };
    assert_eq!(devices::filter(&allowance(json).unwrap(), &without_ebpf).unwrap(), Filter::Nothing);
    let refusal = devices::filter(&allowance("[]").unwrap(), &without_ebpf).unwrap_err().to_string();
    assert!(refusal.starts_with("cannot set resources.devices: this host has no device filter"), "{refusal}");
}

#[test]
fn what_is_refused() {
    let table = [
        (
            r#"{"allow":true}"#,
            "invalid resources.devices[0].access \"\": device access field cannot be empty",
        ),
        (
            r#"{"allow":true,"access":"rx"}"#,
            "invalid resources.devices[0].access rx: only r, w and m are accesses",
        ),
        (
            r#"{"allow":true,"type":"p","access":"r"}"#,
            "invalid resources.devices[0].type p: invalid cgroup device type",
        ),
        (
            r#"{"allow":true,"type":"u","access":"r"}"#,
            "invalid resources.devices[0].type u: invalid cgroup device type",
        ),
        (
            r#"{"allow":true,"type":"c","major":-2,"access":"r"}"#,
            "invalid resources.devices[0].major -2: not a device number",
        ),
        (
            r#"{"allow":true,"type":"b","minor":4294967296,"access":"r"}"#,
            "invalid resources.devices[0].minor 4294967296: not a device number",
        ),
        (
            r#"{"allow":true,"type":"c","major":1,"access":"rw"},{"allow":false,"type":"c","major":1,"minor":3,"access":"w"}"#,
            "invalid resources.devices c 1:3 w: cannot punch hole in existing wildcard rule c 1:*",
        ),
        (
            r#"{"allow":true,"access":"rwm"},{"allow":false,"type":"b","access":"w"},{"allow":true,"type":"b","major":8,"access":"w"}"#,
            "invalid resources.devices b 8:* w: cannot punch hole in existing wildcard rule b *:*",
        ),
    ];
    for (json, refusal) in table {
        assert_eq!(allowance(&format!("[{json}]")), Err(refusal.to_owned()), "{json}");
    }
    // No hole: the accesses have nothing in common.
    allowance(
        r#"[{"allow":true,"type":"c","major":1,"access":"r"},{"allow":false,"type":"c","major":1,"minor":3,"access":"w"}]"#,
    )
    .unwrap();
    // -1 is every number.
    let any = allowance(r#"[{"allow":true,"type":"c","major":-1,"minor":-1,"access":"m"}]"#).unwrap();
    assert_eq!(any, allowance(r#"[{"allow":true,"type":"c","access":"m"}]"#).unwrap());
}
