// SPDX-License-Identifier: Apache-2.0
int generic();
int native();

int main() { return generic() == native() ? 0 : 1; }
