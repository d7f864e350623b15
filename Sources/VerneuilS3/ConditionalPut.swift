import NIOCore
import VerneuilStore

/// A PUT with a condition, on a store of which it isn't known that it honours
/// conditions. Some accept and ignore them (rclone), some refuse them (Swift),
/// some want If-Match's tag without the quotes that HTTP prescribes (Ceph).
///
/// Found out once per process and kind of condition, with the object itself
/// and no more permissions than its PUT needs:
/// - HEAD first: where the condition fails already, nothing is sent.
/// - `ifAbsent`: PUT with the condition; then the same PUT again, which a store
///   that honours it must refuse.
/// - `ifTag`: first with a tag that no object has, which must be refused; then with the right one.
///
/// Where that PUT is not refused, the store ignores conditions: the answer is
/// `.conditionUnsupported`, and the body has been stored, as it would have been
/// by whoever then stores it without a condition.
///
/// A refusal after a try whose answer was lost may be caused by that very try:
/// the object is fetched and compared before it is believed.
/// Confined to its event loop.
final class ConditionalPut: @unchecked Sendable {
    private let put: S3Request
    private let condition: PutCondition
    private let body: [UInt8]
    private let client: S3Client
    private let completion: @Sendable (Result<String, StoreError>) -> Void
    private var mayBeOurs = false

    private static let impossibleTag = "00000000000000000000000000000000"

    init(
        _ put: S3Request, _ request: PutRequest, _ client: S3Client,
        _ completion: @escaping @Sendable (Result<String, StoreError>) -> Void
    ) {
        self.put = put
        condition = request.condition
        body = request.body
        self.client = client
        self.completion = completion
    }

    func start() {
        client.loop.execute { [self] in
            let known = client.status.snapshot.conditionalWrites
            switch (condition, condition == .ifAbsent ? known.ifAbsent : known.ifTag) {
            case (_, false?): finish(.failure(unsupported("the store does not honour conditions on PUT")))
            case (_, true?): send(known)
            case (_, nil): headFirst()
            }
        }
    }

    // MARK: A store that is known

    private func send(_ known: ConditionalWrites) {
        switch condition {
        case .always:
            perform(put) { [self] answer in settle(answer) }
        case .ifAbsent:
            perform(with("if-none-match", "*")) { [self] answer in settle(answer) }
        case .ifTag(let tag):
            perform(with("if-match", known.bareTags ? tag : "\"\(tag)\"")) { [self] answer in settle(answer) }
        }
    }

    private func settle(_ answer: S3Answer) {
        switch answer.status {
        case 200..<300 where answer.error == nil: finish(.success(answer.tag))
        case 412 where mayBeOurs: compare(answer)
        default: finish(.failure(S3Store.error(for: answer, with("if-match", ""), client)))
        }
    }

    // MARK: A store that is not

    private func headFirst() {
        var head = put
        head.kind = .head
        head.headers = []
        head.body = nil
        head.bodyHash = S3Signer.emptyBodyHash
        perform(head) { [self, head] answer in
            switch (condition, answer.status) {
            case (.ifAbsent, 200): refuse("there is such an object already")
            case (.ifAbsent, _): probeAbsent()
            case (.ifTag(let tag), 200) where answer.tag != tag:
                refuse("expected entity tag \(tag), found \(answer.tag)")
            case (.ifTag, 200): probeTag()
            case (.ifTag, 404): refuse("there is no such object")
            default: finish(.failure(S3Store.error(for: answer, head, client)))
            }
        }
    }

    private func probeAbsent() {
        let conditional = with("if-none-match", "*")
        perform(conditional) { [self] first in
            guard (200..<300).contains(first.status), first.error == nil else {
                if Self.isRefusalOfConditions(first) { learn { $0.ifAbsent = false } }
                if first.status == 412 { learn { $0.ifAbsent = true } }
                return settle(first)
            }
            perform(conditional) { [self] second in
                if second.status == 412 {
                    learn { $0.ifAbsent = true }
                    finish(.success(first.tag))
                } else if (200..<300).contains(second.status) {
                    learn { $0.ifAbsent = false }
                    finish(.failure(unsupported("the store ignores If-None-Match on PUT")))
                } else {
                    // Stored, and nothing learned.
                    finish(.success(first.tag))
                }
            }
        }
    }

    private func probeTag() {
        perform(with("if-match", "\"\(Self.impossibleTag)\"")) { [self] answer in
            switch answer.status {
            case 412:
                tryTag(bare: false)
            case 200..<300 where answer.error == nil:
                learn { $0.ifTag = false }
                finish(.failure(unsupported("the store ignores If-Match on PUT")))
            default:
                if Self.isRefusalOfConditions(answer) { learn { $0.ifTag = false } }
                settle(answer)
            }
        }
    }

    private func tryTag(bare: Bool) {
        guard case .ifTag(let tag) = condition else { return }
        perform(with("if-match", bare ? tag : "\"\(tag)\"")) { [self] answer in
            if (200..<300).contains(answer.status) && answer.error == nil {
                learn {
                    $0.ifTag = true
                    $0.bareTags = bare
                }
                finish(.success(answer.tag))
            } else if answer.status == 412 && !bare && !mayBeOurs {
                tryTag(bare: true)
            } else {
                // Another was faster, or no form of tag is right: not known yet.
                settle(answer)
            }
        }
    }

    private static func isRefusalOfConditions(_ answer: S3Answer) -> Bool {
        answer.status == 501 || answer.error?.code == "NotImplemented"
    }

    // MARK: Parts

    /// The condition did not hold, perhaps because an earlier try of ours made it so.
    private func compare(_ refusal: S3Answer) {
        var get = put
        get.kind = .get
        get.headers = []
        get.body = nil
        get.bodyHash = S3Signer.emptyBodyHash
        get.limit = max(body.count, 1)
        client.perform(get) { [self] result in
            switch result {
            case .success(let answer) where answer.status == 200 && answer.body == body:
                finish(.success(answer.tag))
            case .failure(let error) where error.kind != .tooLarge:
                completion(.failure(error))
            case .failure:
                // Another body, and counted as a failure already.
                completion(.failure(S3Store.error(for: refusal, with("if-match", ""), client)))
            default:
                finish(.failure(S3Store.error(for: refusal, with("if-match", ""), client)))
            }
        }
    }

    private func with(_ header: String, _ value: String) -> S3Request {
        var request = put
        request.headers.append(.init(name: header, value: value))
        return request
    }

    private func perform(_ request: S3Request, _ next: @escaping @Sendable (S3Answer) -> Void) {
        client.perform(request) { [self] result in
            switch result {
            // Counted by the call.
            case .failure(let error): completion(.failure(error))
            case .success(let answer):
                if request.kind == .put && answer.mayHaveHappenedBefore { mayBeOurs = true }
                next(answer)
            }
        }
    }

    private func learn(_ change: (inout ConditionalWrites) -> Void) {
        client.status.update { change(&$0.conditionalWrites) }
    }

    private func refuse(_ reason: String) {
        finish(
            .failure(StoreError(.conditionFailed, store: client.storeName, operation: put.title, reason: reason)))
    }

    private func unsupported(_ reason: String) -> StoreError {
        StoreError(.conditionUnsupported, store: client.storeName, operation: put.title, reason: reason)
    }

    private func finish(_ result: Result<String, StoreError>) {
        if case .failure = result { client.status.count(\.failures) }
        completion(result)
    }
}
