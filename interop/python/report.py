"""Runs a module's tests and writes one line of JSON for each to the file INTEROP_RESULTS."""

import faulthandler
import json
import os
import sys
import unittest

BOUND_SECONDS = 290


class Report(unittest.TestResult):
    def __init__(self, file):
        super().__init__()
        self.file = file

    def addSuccess(self, test):
        self.write(test, None)

    def addError(self, test, err):
        self.write(test, self._exc_info_to_string(err, test))
        super().addError(test, err)

    addFailure = addError

    def addSkip(self, test, reason):
        self.write(test, f"skipped: {reason}")

    def write(self, test, failure):
        group, name = type(test).__doc__ or type(test).__name__, test.shortDescription() or str(test)
        self.file.write(json.dumps({"group": group, "test": name, "failure": failure}) + "\n")
        self.file.flush()


def main():
    # A call that hangs is found by its stack.
    faulthandler.dump_traceback_later(BOUND_SECONDS, exit=True)
    tests = unittest.defaultTestLoader.loadTestsFromName(sys.argv[1])
    with open(os.environ["INTEROP_RESULTS"], "w", encoding="utf-8") as file:
        report = Report(file)
        tests.run(report)
    sys.exit(0 if report.wasSuccessful() else 1)


if __name__ == "__main__":
    main()
