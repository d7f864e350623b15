import VerneuilCore

/// One thing that was looked at.
struct DoctorCheck {
    enum Outcome: String {
        case ok, problem
        /// It could not be found out, or doesn't exist here; replication may be fine all the same.
        case unknown
    }
    /// What it is about: a store, a directory, this machine.
    var subject: String
    var check: String
    var outcome: Outcome
    var found: String
    /// What to do.
    var advice: String?

    var json: JSON {
        .object([
            "subject": .string(subject), "check": .string(check), "outcome": .string(outcome.rawValue),
            "found": .string(found), "advice": advice.map { .string($0) } ?? .null,
        ])
    }
}

/// Collects checks of one subject.
struct DoctorChart {
    let subject: String
    private(set) var checks: [DoctorCheck] = []

    init(_ subject: String) { self.subject = subject }

    mutating func ok(_ check: String, _ found: String, advice: String? = nil) {
        checks.append(DoctorCheck(subject: subject, check: check, outcome: .ok, found: found, advice: advice))
    }
    mutating func problem(_ check: String, _ found: String, advice: String?) {
        checks.append(DoctorCheck(subject: subject, check: check, outcome: .problem, found: found, advice: advice))
    }
    mutating func unknown(_ check: String, _ found: String, advice: String? = nil) {
        checks.append(DoctorCheck(subject: subject, check: check, outcome: .unknown, found: found, advice: advice))
    }
}
