// SPDX-License-Identifier: Apache-2.0
float generic();
float native();

int main() { return generic() == native() && generic() > 0 ? 0 : 1; }
