# Writes OUTPUT, a header that says which commit was built. Runs at every build and leaves the file
# alone when nothing changed, so that only a new commit costs a compilation.
# Call: cmake -D SOURCE=... -D OUTPUT=... -D VERSION=... -D TYPE=... -D COMPILER=... -D BACKENDS=... -P this
set(commit "unknown")
find_program(GIT git)
if(GIT AND EXISTS "${SOURCE}/.git")
  # A clone that belongs to another user is still the source of this build.
  set(git "${GIT}" -c "safe.directory=${SOURCE}" -C "${SOURCE}")
  execute_process(COMMAND ${git} rev-parse HEAD OUTPUT_VARIABLE head OUTPUT_STRIP_TRAILING_WHITESPACE ERROR_QUIET RESULT_VARIABLE failed)
  if(NOT failed)
    set(commit "${head}")
    execute_process(COMMAND ${git} status --porcelain --untracked-files=no OUTPUT_VARIABLE changes ERROR_QUIET)
    if(changes)
      string(APPEND commit "-dirty")
    endif()
  endif()
endif()
set(content "#pragma once
#define STRAKE_BUILD_VERSION \"${VERSION}\"
#define STRAKE_BUILD_COMMIT \"${commit}\"
#define STRAKE_BUILD_TYPE \"${TYPE}\"
#define STRAKE_BUILD_COMPILER \"${COMPILER}\"
#define STRAKE_BUILD_BACKENDS \"${BACKENDS}\"
")
set(before "")
if(EXISTS "${OUTPUT}")
  file(READ "${OUTPUT}" before)
endif()
if(NOT before STREQUAL content)
  file(WRITE "${OUTPUT}" "${content}")
endif()
